"""What configs are known to reach on real logs, a file for each data set, and whether they still do."""
