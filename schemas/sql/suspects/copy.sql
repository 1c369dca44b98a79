-- one picture under two names
-- order: 40
-- label: Copy under another name?
-- asks: copy

-- The photo whose own name speaks against it is blamed; where the names of both are as good, either may be wrong. Frames of one
-- burst, which agree less closely, are left to the rule of wrong names. Duplicates under one name are no contradiction: see the
-- view `duplicates`.
SELECT
    'pair' AS subject_kind,
    pair_id AS subject,
    blamed AS blamed_photo,
    right_name,
    [pair_id] AS supporting_pairs,
    NULL AS photos,
    agreement AS score,
    format('{} ({}) and {} ({}) are one picture: {}.', photo_a, identity_a, photo_b, identity_b, replace(transform, ',', ', '))
    || format(' Their gradients correlate by {:.3f} over {:.0f} % of the smaller one.', agreement, 100 * overlap)
    || coalesce(format(' The other photos speak against the name of {}.', blamed), '') AS words
FROM copied_photos
WHERE (certain OR NOT EXISTS (
    FROM listed_photos AS p WHERE p.photo_id IN (photo_a, photo_b)
))
  -- Two names that are likely one animal have such pictures; they are one row, that of the names.
  AND NOT EXISTS (
    FROM judged_names AS n
    WHERE n.kind = 'two_names_one_animal' AND n.probability >= 0.5
      AND least(n.name_a, n.name_b) = least(identity_a, identity_b) AND greatest(n.name_a, n.name_b) = greatest(identity_a, identity_b)
      AND NOT EXISTS (
        FROM reviews AS r
        WHERE r.applies AND r.kind = 'names' AND r.verdict = 'two_animals'
          AND r.subject = least(n.name_a, n.name_b) AND r.other = greatest(n.name_a, n.name_b)
      )
)
QUALIFY row_number() OVER (PARTITION BY coalesce(blamed, pair_id) ORDER BY agreement DESC, pair_id) = 1
