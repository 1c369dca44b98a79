-- one picture under two names
-- order: 30
-- label: Copy under another name?

-- Duplicates under one name are no contradiction: see the view `duplicates`.
WITH copied_sides AS (
    SELECT pair_id, photo_a AS photo, sameness FROM evidence WHERE NOT same_identity AND sameness >= 0.5
    UNION ALL
    SELECT pair_id, photo_b, sameness FROM evidence WHERE NOT same_identity AND sameness >= 0.5
)
SELECT
    'pair' AS subject_kind,
    pair_id AS subject,
    NULL AS blamed_photo,
    NULL AS right_name,
    [pair_id] AS supporting_pairs,
    sameness AS score,
    format('{} and {} are the same picture under two names, {} and {}.', photo_a, photo_b, identity_a, identity_b)
    || CASE
        WHEN near_identical(hash_distance) THEN format(' {} of 64 bits of their hashes differ.', hash_distance)
        ELSE ''
    END AS words
FROM evidence
SEMI JOIN (
    -- The best copy of each photo is enough, unless the pair is the best of its other photo.
    FROM copied_sides QUALIFY row_number() OVER (PARTITION BY photo ORDER BY sameness DESC, pair_id) = 1
) USING (pair_id)
