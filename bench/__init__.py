"""Measured claims: how fast, how small and how good downtick is, beside ceilings and simple baselines."""
