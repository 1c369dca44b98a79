-- photos of the catalogue as it is now
-- order: 10
-- narrow
-- snapshot: photo_id

-- The highest revision of each, unless that one says that the photo was withdrawn.
SELECT * EXCLUDE (shard)
FROM run_photos
QUALIFY row_number() OVER (PARTITION BY photo_id ORDER BY revision DESC, shard) = 1 AND present
