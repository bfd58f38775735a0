"""One file for each command of `downtick`."""
