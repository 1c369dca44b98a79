"""Which photos are near each other, by cosine and by hash.

Exact top-k by cosine, and near-identical pictures by their hashes.
"""
