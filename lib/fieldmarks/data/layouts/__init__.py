"""One file for each official layout of a data set."""
