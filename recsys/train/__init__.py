"""The loop, the objective, distributed wrapping and checkpoints."""
