"""Drawn animals, told apart by their coats, and the program that trained the embedded model on them."""
