-- two names whose photos look like one animal's
-- order: 20
-- label: Two names, one animal?
-- asks: names

-- The pair to look at is the likeliest across that is scored, or else of all: retrieval may not have found any.
WITH across AS (
    SELECT least(identity_a, identity_b) AS name_a, greatest(identity_a, identity_b) AS name_b, pair_id, j.log_odds
    FROM pairs AS p JOIN judgements AS j USING (pair_id)
    WHERE NOT same_identity
),
shown AS (
    SELECT name_a, name_b, list(pair_id ORDER BY log_odds DESC, pair_id) AS pairs
    FROM across
    GROUP BY name_a, name_b
)
SELECT
    'name' AS subject_kind,
    n.name_a AS subject,
    NULL AS blamed_photo,
    n.name_b AS right_name,
    coalesce(s.pairs, n.supporting_pairs) AS supporting_pairs,
    [n.supporting_photos_a[1], n.supporting_photos_b[1]] AS photos,
    n.probability AS score,
    format(
        '{} ({} photos) and {} ({} photos) look like one animal.', n.name_a, len(n.photos_a), n.name_b, len(n.photos_b)
    ) AS words
FROM judged_names AS n
LEFT JOIN shown AS s ON s.name_a = least(n.name_a, n.name_b) AND s.name_b = greatest(n.name_a, n.name_b)
WHERE n.kind = 'two_names_one_animal'
