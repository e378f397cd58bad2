"""Copies of the data sets near the ranks that read them, made at the start of a run."""
