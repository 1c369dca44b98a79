-- what probabilities of pairs were stated and how many of those pairs have one name, in bins
-- order: 147

-- Of this state's judgements the one that rests on most counts.
SELECT * EXCLUDE (shard, fingerprint)
FROM run_reliability
WHERE state = (SELECT state FROM current_run) AND basis = (SELECT max(basis) FROM run_reliability WHERE state = (SELECT state FROM current_run))
QUALIFY row_number() OVER (PARTITION BY bin ORDER BY shard) = 1
