"""Metrics of texts, one idea per file. A new file with an `@metric` function adds its metric to every report."""
