-- pictures of current pairs that were drawn
-- order: 90

SELECT * EXCLUDE (shard)
FROM run_explanations
SEMI JOIN pairs USING (pair_id)
SEMI JOIN (SELECT pair_id, layer, min(shard) AS shard FROM run_explanations GROUP BY ALL) USING (pair_id, layer, shard)
