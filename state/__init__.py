"""Updates in, windows out: the rolling history of each stock, in memory and in Redis."""
