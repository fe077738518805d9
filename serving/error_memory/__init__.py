"""What the live models were wrong about lately, made from the journal, and read when a list is ranked."""
