-- when each photo was first stored: the start of the run that wrote the first revision of its entry
-- order: 12
-- narrow
-- column first_stored_at: start of that run; photos whose first file no run recorded are not here

WITH first_rows AS (
    SELECT photo_id, 'photos/fingerprint=' || fingerprint || '/' || shard || '.parquet' AS path
    FROM all_photos
    QUALIFY revision = min(revision) OVER (PARTITION BY photo_id)
)
-- A run's id begins with its start.
SELECT photo_id, min(try_strptime(left(run_id, 15), '%Y%m%dt%H%M%S') AT TIME ZONE 'UTC') AS first_stored_at
FROM first_rows
JOIN all_files USING (path)
GROUP BY photo_id
HAVING first_stored_at IS NOT NULL
