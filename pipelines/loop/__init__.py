"""Days of a simulated world that is served by the real endpoint."""
