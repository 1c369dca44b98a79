-- how many names are wrong, how many animals there are, and how far probabilities can be believed
-- order: 139
-- narrow

-- Of this state's judgements the one that rests on most counts.
SELECT * EXCLUDE (shard, fingerprint)
FROM run_judged_catalogues
WHERE state = (SELECT state FROM current_run) AND basis = (SELECT max(basis) FROM run_judged_catalogues WHERE state = (SELECT state FROM current_run))
QUALIFY row_number() OVER (ORDER BY shard) = 1
