"""One pair of photos: its matches, their relevance and plausibility, and the finding of all."""
