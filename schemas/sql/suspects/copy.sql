-- one picture under two names
-- order: 40
-- label: Copy under another name?

-- What was compared pixel by pixel. The photo whose own name speaks against it is blamed; where the names of both are as good,
-- either may be wrong. Duplicates under one name are no contradiction: see the view `duplicates`.
WITH found AS (
    SELECT
        c.*,
        a.log_odds AS doubt_a,
        b.log_odds AS doubt_b,
        CASE WHEN doubt_a > doubt_b THEN photo_a WHEN doubt_b > doubt_a THEN photo_b END AS blamed
    FROM copies AS c
    LEFT JOIN judged_photos AS a ON a.photo_id = c.photo_a AND NOT a.undefended
    LEFT JOIN judged_photos AS b ON b.photo_id = c.photo_b AND NOT b.undefended
    WHERE same_picture AND NOT same_identity
)
SELECT
    'pair' AS subject_kind,
    pair_id AS subject,
    blamed AS blamed_photo,
    CASE blamed WHEN photo_a THEN identity_b WHEN photo_b THEN identity_a END AS right_name,
    [pair_id] AS supporting_pairs,
    agreement AS score,
    format('{} ({}) and {} ({}) are one picture: {}.', photo_a, identity_a, photo_b, identity_b, replace(transform, ',', ', '))
    || format(' Their gradients correlate by {:.3f} over {:.0f} % of the smaller one.', agreement, 100 * overlap)
    || coalesce(format(' The other photos speak against the name of {}.', blamed), '') AS words
FROM found
QUALIFY row_number() OVER (PARTITION BY coalesce(blamed, pair_id) ORDER BY agreement DESC, pair_id) = 1
