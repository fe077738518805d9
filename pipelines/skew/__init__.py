"""What a server's graphs read and said, against what is worked out again offline: the skew between training and serving."""
