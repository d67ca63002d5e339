"""Guides: what steers sampling towards words, patterns, labels or a condition."""
