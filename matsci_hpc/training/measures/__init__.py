"""Losses and metrics by kind of target."""
