-- pairs that the later of two runs judged and the earlier did not
-- order: 176
-- column identity_a: name of photo_a in the later run; null when unknown
-- column identity_b: name of photo_b in the later run; null when unknown
-- column same_identity: whether both have one name; null when either is unknown

WITH judged AS (
    SELECT s.side, j.pair_id, j.photo_a, j.photo_b, j.log_odds, j.probability
    FROM all_judgements AS j
    JOIN compared_states AS s ON j.state = s.state AND j.basis = s.basis AND j.fingerprint = s.judgements_fingerprint
    QUALIFY row_number() OVER (PARTITION BY s.side, j.pair_id ORDER BY j.shard) = 1
)
SELECT
    l.pair_id,
    l.photo_a,
    l.photo_b,
    a.name_now AS identity_a,
    b.name_now AS identity_b,
    a.name_now = b.name_now AS same_identity,
    l.log_odds,
    l.probability
FROM (FROM judged WHERE side = 'later') AS l
ANTI JOIN (FROM judged WHERE side = 'earlier') AS e USING (pair_id)
LEFT JOIN compared_photos AS a ON a.photo_id = l.photo_a
LEFT JOIN compared_photos AS b ON b.photo_id = l.photo_b
