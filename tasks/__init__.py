"""The stages: each takes a shard in and commits a shard to the warehouse."""
