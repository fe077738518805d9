"""Runs side by side: what may be compared, what is shown, and the page."""
