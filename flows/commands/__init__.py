"""What each command of `pairx` does, apart from parsing."""
