"""From people's verdicts to a corrected catalogue: what changes, what is held back, and why."""
