"""Metrics: ranking and classification, their intervals, and the floor every model is compared with."""
