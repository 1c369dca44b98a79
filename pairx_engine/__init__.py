"""The mathematics of PAIR-X: chips, models, relevance, matching, local evidence, plausibility, exact top-k,
drawing.

Pure torch, NumPy, OpenCV and Pillow: no scheduler, no warehouse, nothing of the other packages.
"""
