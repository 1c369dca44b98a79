-- the numbers of the model that judged
-- order: 148

-- Of this state's judgements the one that rests on most counts.
SELECT * EXCLUDE (shard, fingerprint)
FROM run_judges
WHERE state = (SELECT state FROM current_run) AND basis = (SELECT max(basis) FROM run_judges WHERE state = (SELECT state FROM current_run))
QUALIFY row_number() OVER (PARTITION BY part, fold_a, fold_b, species, term ORDER BY shard) = 1
