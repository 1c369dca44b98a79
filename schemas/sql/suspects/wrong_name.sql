-- a photo whose name the pictures speak against
-- order: 10
-- label: Wrong name?
-- asks: name

-- One row per photo; how likely its name is wrong, and the name that it should have, are of the judgement. The pairs shown are
-- the likeliest to show one animal: first those with the proposed name, then those with others, last those with its own.
WITH named AS (
    SELECT pair_id, p.photo_a AS photo, p.identity_b AS other_name, p.same_identity, j.probability, j.log_odds
    FROM pairs AS p JOIN judgements AS j USING (pair_id)
    WHERE same_identity IS NOT NULL
    UNION ALL
    SELECT pair_id, p.photo_b, p.identity_a, p.same_identity, j.probability, j.log_odds
    FROM pairs AS p JOIN judgements AS j USING (pair_id)
    WHERE same_identity IS NOT NULL
),
shown AS (
    SELECT
        p.photo_id,
        list(pair_id ORDER BY coalesce(n.other_name = p.proposed_name, false) DESC, n.log_odds DESC, pair_id)
            FILTER (NOT same_identity AND (p.proposed_name IS NULL OR n.other_name = p.proposed_name OR n.probability >= 0.5)) AS against,
        first(pair_id ORDER BY n.log_odds DESC, pair_id) FILTER (NOT same_identity) AS nearest_other,
        max(n.probability) FILTER (n.other_name = p.proposed_name) AS best_other,
        count(*) FILTER (n.other_name = p.proposed_name AND n.probability >= 0.5) AS likely_others,
        first(pair_id ORDER BY n.log_odds DESC, pair_id) FILTER (same_identity) AS own_pair,
        max(n.probability) FILTER (same_identity) AS best_own
    FROM judged_photos AS p
    JOIN named AS n ON n.photo = p.photo_id
    SEMI JOIN listed_photos USING (photo_id)
    GROUP BY p.photo_id
)
SELECT
    'photo' AS subject_kind,
    photo_id AS subject,
    photo_id AS blamed_photo,
    p.proposed_name AS right_name,
    list_concat(
        CASE WHEN len(coalesce(against, [])) > 0 THEN against ELSE list_filter([nearest_other], lambda x: x IS NOT NULL) END,
        list_filter([own_pair], lambda x: x IS NOT NULL)
    ) AS supporting_pairs,
    NULL AS photos,
    p.probability AS score,
    CASE
        WHEN p.proposed_name IS NULL THEN format('{} is called {} and looks like no other name either.', photo_id, p.identity)
        ELSE format('{} is called {} and looks like {}.', photo_id, p.identity, p.proposed_name)
    END
    || coalesce(format(' One animal with {} by a probability of up to {:.2f}', p.proposed_name, best_other)
        || CASE WHEN likely_others > 1 THEN format(' ({} pairs say so)', likely_others) ELSE '' END, '')
    || coalesce(format('{} with {} by up to {:.2f}', if(best_other IS NULL, ' One animal', ','), p.identity, best_own), '')
    || if(best_other IS NULL AND best_own IS NULL, '', '.') AS words
FROM shown
JOIN judged_photos AS p USING (photo_id)
-- A copy that says the same is one row, that of the copy.
WHERE photo_id NOT IN (SELECT blamed FROM copied_photos WHERE certain AND blamed IS NOT NULL)
