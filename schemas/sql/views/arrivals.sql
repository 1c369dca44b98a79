-- when each photo was first stored: the start of the run that wrote the first revision of its entry
-- order: 12
-- narrow
-- column first_stored_at: start of that run; photos whose first file no run recorded are not here

-- A run's id begins with its start.
SELECT photo_id, min(try_strptime(left(run_id, 15), '%Y%m%dt%H%M%S') AT TIME ZONE 'UTC') AS first_stored_at
FROM (FROM photo_entries QUALIFY revision = min(revision) OVER (PARTITION BY photo_id))
GROUP BY photo_id
HAVING first_stored_at IS NOT NULL
