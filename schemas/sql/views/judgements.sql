-- probability of every scored pair that it shows one animal, with what each signal added
-- order: 136
-- narrow
-- snapshot: photo_a, photo_b

-- Of this state's judgements the one that rests on most counts.
SELECT * EXCLUDE (shard, fingerprint)
FROM run_judgements
WHERE state = (SELECT state FROM current_run) AND basis = (SELECT max(basis) FROM run_judgements WHERE state = (SELECT state FROM current_run))
QUALIFY row_number() OVER (PARTITION BY pair_id ORDER BY shard) = 1
