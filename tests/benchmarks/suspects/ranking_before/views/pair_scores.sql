-- every current pair with its scores at the layer that ranks: start here
-- order: 50
-- narrow

-- What most questions are about: every current pair with its scores at the layer that ranks.
SELECT p.* EXCLUDE (fingerprint), s.* EXCLUDE (pair_id, photo_a, photo_b, shard, fingerprint)
FROM pairs AS p
JOIN (
    SELECT s.*
    FROM run_scores AS s
    JOIN current_run USING (layer)
    QUALIFY row_number() OVER (PARTITION BY pair_id ORDER BY shard) = 1
) AS s USING (pair_id)
