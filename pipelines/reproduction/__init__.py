"""Build a stored run again and see whether its metrics agree."""
