"""Which photos are near each other: exact top-k by cosine, and near-identical pictures by their hashes."""
