"""How the shards of a stage are worked off: as tasks with retries and limits, with progress on the way."""
