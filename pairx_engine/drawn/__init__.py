"""Drawn animals: made-up quadrupeds whose coats tell them apart, for demonstrations, tests and training."""
