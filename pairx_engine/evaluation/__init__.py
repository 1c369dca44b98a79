"""How well a plausibility score tells correct from incorrect pairs, and what it adds to the cosine.

This is the paper's Table 1. Pure NumPy over labelled pairs. Nothing is re-exported: functions are imported
from the module that holds them.
"""
