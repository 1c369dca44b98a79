-- a photo whose best pair under its own name speaks less for one animal than its best pair under another name
-- order: 20
-- label: Same name, different animals?

-- The score is the difference. A photo without a comparable partner of its own name cannot be judged.
WITH foreign_best AS (
    SELECT
        photo,
        pair_id AS foreign_pair,
        other AS foreign_photo,
        other_name AS foreign_name,
        evidence AS foreign_evidence
    FROM rivals
    QUALIFY row_number() OVER (PARTITION BY photo ORDER BY evidence DESC, cosine DESC, pair_id) = 1
)
SELECT
    'photo' AS subject_kind,
    photo AS subject,
    photo AS blamed_photo,
    foreign_name AS right_name,
    [own_pair, foreign_pair] AS supporting_pairs,
    foreign_evidence - own AS score,
    format(
        '{} is less like {}, its best partner of the same name (evidence {:.2f}), than like {} named {} ({:.2f}).',
        photo, own_photo, own, foreign_photo, foreign_name, foreign_evidence
    ) AS words
FROM own_best
JOIN foreign_best USING (photo)
WHERE own < foreign_evidence
QUALIFY row_number() OVER (PARTITION BY own_pair ORDER BY score DESC, photo) = 1
