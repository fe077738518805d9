"""Learning on: what keeps a model good while days pass, and what makes it forget."""
