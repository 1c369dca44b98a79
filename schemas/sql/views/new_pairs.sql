-- pairs that the later of two runs judged and the earlier did not
-- order: 176
-- column identity_a: name of photo_a in the later run; null when unknown
-- column identity_b: name of photo_b in the later run; null when unknown
-- column same_identity: whether both have one name; null when either is unknown

WITH earlier AS (
    SELECT pair_id
    FROM all_judgements
    WHERE state = (SELECT earlier_state FROM compared_states) AND basis = (SELECT earlier_basis FROM compared_states)
      AND fingerprint = (SELECT earlier_judgements_fingerprint FROM compared_states)
),
later AS (
    SELECT pair_id, photo_a, photo_b, log_odds, probability
    FROM all_judgements
    WHERE state = (SELECT later_state FROM compared_states) AND basis = (SELECT later_basis FROM compared_states)
      AND fingerprint = (SELECT later_judgements_fingerprint FROM compared_states)
    QUALIFY row_number() OVER (PARTITION BY pair_id ORDER BY shard) = 1
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
FROM later AS l
ANTI JOIN earlier AS e USING (pair_id)
LEFT JOIN compared_photos AS a ON a.photo_id = l.photo_a
LEFT JOIN compared_photos AS b ON b.photo_id = l.photo_b
