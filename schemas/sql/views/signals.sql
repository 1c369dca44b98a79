-- local matches of current pairs, counted where the model looks, one row per layer
-- order: 65
-- narrow

SELECT * EXCLUDE (shard)
FROM run_signals
SEMI JOIN pairs USING (pair_id)
QUALIFY row_number() OVER (PARTITION BY pair_id, layer ORDER BY shard) = 1
