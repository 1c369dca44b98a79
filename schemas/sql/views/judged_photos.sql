-- every photo with the probability that its name is wrong, and the name that it should have
-- order: 137
-- narrow

-- Of this state's judgements the one that rests on most counts.
SELECT * EXCLUDE (shard, fingerprint)
FROM run_judged_photos
WHERE state = (SELECT state FROM current_run) AND basis = (SELECT max(basis) FROM run_judged_photos WHERE state = (SELECT state FROM current_run))
QUALIFY row_number() OVER (PARTITION BY photo_id ORDER BY shard) = 1
