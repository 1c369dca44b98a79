-- local features of the current photos
-- order: 30

SELECT * EXCLUDE (shard)
FROM run_keypoints
SEMI JOIN photos USING (photo_id, chip_id)
SEMI JOIN (SELECT photo_id, chip_id, min(shard) AS shard FROM run_keypoints GROUP BY ALL) USING (photo_id, chip_id, shard)
