"""Codecs, noise processes and their exact reverse steps, schedules, time densities and predictions."""
