-- mutual matches of current pairs as parallel lists, most relevant first
-- order: 70

SELECT * EXCLUDE (shard)
FROM run_matches
SEMI JOIN pairs USING (pair_id)
SEMI JOIN (SELECT pair_id, layer, min(shard) AS shard FROM run_matches GROUP BY ALL) USING (pair_id, layer, shard)
