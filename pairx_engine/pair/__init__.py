"""One pair of photos: matches, their relevance, how plausible they are, and the finding that holds all of it."""
