"""Catalogues of photos: their formats, what a cell may hold, and the value that all stages work from."""
