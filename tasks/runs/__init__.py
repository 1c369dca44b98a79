"""Runs: what is left to do, what was done, the report on it, and what processes compute with."""
