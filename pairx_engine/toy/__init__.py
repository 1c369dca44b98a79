"""Drawn animals, whose coats tell them apart, and the program that trained the embedded model on them."""
