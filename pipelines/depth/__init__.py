"""How many candidates are worth ranking."""
