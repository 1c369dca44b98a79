"""The stages: each takes a shard in and commits a shard to the warehouse."""

from tasks import offers as offers  # wherever settings are read, what they may name is known
