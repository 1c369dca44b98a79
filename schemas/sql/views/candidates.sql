-- names that photos of unknown animals may have, a new animal among them
-- order: 146
-- narrow

-- Of this state's judgements the one that rests on most counts.
SELECT * EXCLUDE (shard, fingerprint)
FROM run_candidates
WHERE state = (SELECT state FROM current_run) AND basis = (SELECT max(basis) FROM run_candidates WHERE state = (SELECT state FROM current_run))
QUALIFY row_number() OVER (PARTITION BY photo_id, rank ORDER BY shard) = 1
