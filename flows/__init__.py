"""The wiring: the nightly flow, clusters, a Prefect server for a run, and the `pairx` command line."""
