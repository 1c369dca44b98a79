"""The Prefect API: a server of a run's own, one that is configured, and reports that may fail."""
