-- a name whose photos fall into two parts that look like two animals
-- order: 30
-- label: One name, two animals?
-- asks: split

-- The pair to look at is the least likely across the cut that is scored, or else of all.
WITH across AS (
    SELECT n.name_a, list(pair_id ORDER BY j.log_odds, pair_id) AS pairs
    FROM judged_names AS n
    JOIN pairs AS p ON p.identity_a = n.name_a AND p.same_identity
    JOIN judgements AS j USING (pair_id)
    WHERE n.kind = 'one_name_two_animals'
      AND list_contains(n.photos_a, p.photo_a) <> list_contains(n.photos_a, p.photo_b)
    GROUP BY n.name_a
)
SELECT
    'name' AS subject_kind,
    n.name_a AS subject,
    NULL AS blamed_photo,
    nullif(n.name_b, '') AS right_name,
    coalesce(s.pairs, n.supporting_pairs) AS supporting_pairs,
    [n.supporting_photos_a[1], n.supporting_photos_b[1]] AS photos,
    n.probability AS score,
    format('The photos of {} fall into two parts that look like two animals: {} photos and {} ({}{}).',
        n.name_a, len(n.photos_a), len(n.photos_b), array_to_string(n.photos_b[1:5], ', '), if(len(n.photos_b) > 5, ', …', ''))
    || if(n.name_b <> '', format(' The smaller part looks like {}.', n.name_b), '') AS words
FROM judged_names AS n
LEFT JOIN across AS s USING (name_a)
WHERE n.kind = 'one_name_two_animals'
