-- a photo that looks like an animal of another name, more than like its own
-- order: 10
-- label: Different names, same animal?

-- A misfiled photo resembles all photos of its true animal: its best pair stands for all, the others are counted.
WITH different_photos AS (
    SELECT
        *,
        list(pair_id) OVER (
            PARTITION BY photo, other_name ORDER BY score DESC, cosine DESC, pair_id
            ROWS BETWEEN UNBOUNDED PRECEDING AND UNBOUNDED FOLLOWING
        ) AS pairs,
        len(pairs) - 1 AS others
    FROM rivals
    WHERE score >= 0.1
    QUALIFY row_number() OVER (PARTITION BY photo ORDER BY score DESC, cosine DESC, pair_id) = 1
)
SELECT
    'photo' AS subject_kind,
    photo AS subject,
    photo AS blamed_photo,
    other_name AS right_name,
    pairs AS supporting_pairs,
    score,
    format('{} ({}) and {} ({}) look like one animal.', photo, name, other, other_name)
    || CASE
        WHEN own IS NULL THEN format(' No other photo of {} shows this side of {}.', name, photo)
        ELSE format(' Evidence {:.2f}; under its own name {} reaches {:.2f} at best.', evidence, photo, own)
    END
    || CASE
        WHEN others = 1 THEN format(' 1 more pair ties {} to {}.', photo, other_name)
        WHEN others > 1 THEN format(' {} more pairs tie {} to {}.', others, photo, other_name)
        ELSE ''
    END AS words
FROM different_photos
