"""What computes: the device of a process, its memory, and how much is done on it at once."""
