"""Variants of a config trained alike, and which differences are shown."""
