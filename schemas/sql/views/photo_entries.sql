-- every entry that a photo ever had in the catalogue, with the run that wrote it
-- order: 171
-- column run_id: run that wrote the entry; null where that run was killed before it could say so, or is older than the table files

-- A later record of the same file is that of a run which wrote a damaged one anew.
WITH written AS (
    SELECT path, min(run_id) AS run_id
    FROM all_files
    WHERE starts_with(path, 'photos/') AND digest IS NOT NULL
    GROUP BY path
)
SELECT p.photo_id, p.revision, p.present, p.identity, p.chip_id, w.run_id, p.fingerprint
FROM all_photos AS p
LEFT JOIN written AS w ON w.path = format('photos/fingerprint={}/{}.parquet', p.fingerprint, p.shard)
QUALIFY row_number() OVER (PARTITION BY p.fingerprint, p.photo_id, p.revision ORDER BY w.run_id NULLS LAST, p.shard) = 1
