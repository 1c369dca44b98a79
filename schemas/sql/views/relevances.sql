-- relevance grids of current pairs
-- order: 80

SELECT * EXCLUDE (shard)
FROM run_relevances
SEMI JOIN pairs USING (pair_id)
SEMI JOIN (SELECT pair_id, layer, min(shard) AS shard FROM run_relevances GROUP BY ALL) USING (pair_id, layer, shard)
