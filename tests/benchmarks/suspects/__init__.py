"""How well the suspects find planted errors, beside simple methods on the same evidence.

    python -m tests.benchmarks.suspects

`planting`, `simple_methods`, `measures`, `calibration` and `retrieval` take plain arrays and know no
warehouse.
"""
