"""Rules as rows: how relevance passes each kind of step, and the sets that presets propagate by."""
