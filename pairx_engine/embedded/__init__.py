"""The embedded default model: a MiewID in miniature that was trained on drawn animals, and the program that trained it."""
