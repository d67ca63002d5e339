"""Processes: how states are corrupted, and the exact laws of undoing it."""
