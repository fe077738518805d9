"""The daily run on an orchestrator."""
