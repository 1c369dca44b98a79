"""The warehouse: files of shards, whole or absent, what is known of each, and who may write."""
