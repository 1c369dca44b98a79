"""The wiring: the nightly flow, clusters, the Prefect server of a lone run, and the `pairx` command line."""
