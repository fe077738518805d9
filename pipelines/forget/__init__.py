"""Removing a user from data, state and model."""
