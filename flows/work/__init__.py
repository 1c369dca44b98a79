"""How the shards of a stage are processed: as tasks with retries, limits and progress."""
