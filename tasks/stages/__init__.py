"""The stages, one module each: a stage takes a shard in and commits a shard to the warehouse.

No stage knows another.
"""
