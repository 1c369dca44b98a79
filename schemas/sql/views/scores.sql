-- scores of current pairs, one row per layer
-- order: 60
-- narrow

-- Scores, matches, relevances and pictures of current pairs, for every layer.
SELECT * EXCLUDE (shard)
FROM run_scores
SEMI JOIN pairs USING (pair_id)
QUALIFY row_number() OVER (PARTITION BY pair_id, layer ORDER BY shard) = 1
