"""The demonstration: a drawn catalogue with planted errors, the whole job on it, and what it found."""
