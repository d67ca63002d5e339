"""Weights that others published, language models among them: read, checked and converted to runs."""
