"""What README and docs/results.md quote, each one command; what is measured runs in a process of its own."""
