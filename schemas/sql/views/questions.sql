-- what to ask a person next, one question per suspect, with all that is shown to answer it
-- order: 152
-- narrow
-- snapshot: rank
-- column other_name: the name that is compared with that of the blamed photo or with the first name; null where the rule cannot tell
-- column chip_a: chip of photo_a
-- column chip_b: chip of photo_b
-- column answered_at: when it was answered, where photos that are newer speak against that answer; null otherwise
-- column photos_a: of names and parts of a name all photos of photo_a's side; null otherwise
-- column photos_b: of names and parts of a name all photos of photo_b's side; null otherwise

-- Photo a is the one with the lower id, so the sides of a name are turned where its first side shows photo b.
WITH sides AS (
    SELECT
        s.rank,
        n.photos_a,
        n.photos_b,
        list_contains(n.photos_a, s.photo_b) AS turned
    FROM suspects AS s
    JOIN judged_names AS n
        ON n.kind = s.kind AND n.name_a = s.subject
        AND (s.asks = 'split' OR n.name_b IS NOT DISTINCT FROM s.proposed_name)
    WHERE s.asks IN ('names', 'split')
    QUALIFY row_number() OVER (PARTITION BY s.rank ORDER BY n.probability DESC) = 1
),
-- Answered questions that new photos ask again, perhaps though the judgement no longer does.
again AS (
    SELECT s.rank, c.photos_a, c.photos_b, list_contains(c.photos_a, s.photo_b) AS turned, c.answered_at
    FROM suspects AS s
    JOIN contradicted_reviews AS c ON c.kind = s.asks
        AND c.subject = if(s.asks = 'names', least(s.subject, s.proposed_name), s.subject)
        AND c.other IS NOT DISTINCT FROM if(s.asks = 'names', greatest(s.subject, s.proposed_name), NULL)
)
SELECT
    s.* EXCLUDE (proposed_name),
    s.proposed_name AS other_name,
    a.chip_id AS chip_a,
    b.chip_id AS chip_b,
    if(coalesce(k.turned, g.turned), coalesce(k.photos_b, g.photos_b), coalesce(k.photos_a, g.photos_a)) AS photos_a,
    if(coalesce(k.turned, g.turned), coalesce(k.photos_a, g.photos_a), coalesce(k.photos_b, g.photos_b)) AS photos_b,
    z.supporting_pairs,
    g.answered_at
FROM suspects AS s
JOIN suspicions AS z ON z.kind = s.kind AND z.subject = s.subject AND z.right_name IS NOT DISTINCT FROM s.proposed_name
JOIN photos AS a ON a.photo_id = s.photo_a
JOIN photos AS b ON b.photo_id = s.photo_b
LEFT JOIN sides AS k ON k.rank = s.rank
LEFT JOIN again AS g ON g.rank = s.rank
WHERE s.asks <> ''
QUALIFY row_number() OVER (PARTITION BY s.rank ORDER BY z.score DESC) = 1
