-- names that may be one animal, and names that may be two
-- order: 138
-- narrow

-- Of this state's judgements the one that rests on most counts, which may have nothing to say here: it is found by its photos.
SELECT * EXCLUDE (shard, fingerprint)
FROM run_judged_names
WHERE state = (SELECT state FROM current_run) AND basis = (SELECT max(basis) FROM run_judged_photos WHERE state = (SELECT state FROM current_run))
QUALIFY row_number() OVER (PARTITION BY kind, name_a, name_b ORDER BY shard) = 1
