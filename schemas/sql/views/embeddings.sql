-- embeddings of the current photos
-- order: 20

-- Embeddings and keypoints of what the model sees today; the chip changes with file, box and rotation.
SELECT * EXCLUDE (shard)
FROM run_embeddings
SEMI JOIN photos USING (photo_id, chip_id)
SEMI JOIN (SELECT photo_id, chip_id, min(shard) AS shard FROM run_embeddings GROUP BY ALL) USING (photo_id, chip_id, shard)
