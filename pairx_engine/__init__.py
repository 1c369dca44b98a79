"""The mathematics of PAIR-X.

Chips, models, relevance, matching, local evidence, plausibility, exact top-k, drawing. Pure torch, NumPy,
OpenCV and Pillow: no scheduler, no warehouse, nothing of the other packages.
"""
