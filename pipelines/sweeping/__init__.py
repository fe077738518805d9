"""Hyper-parameter search over any key of a config."""
