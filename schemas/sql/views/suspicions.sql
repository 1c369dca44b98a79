-- what each rule suspects: whom it blames, the name that would fit, and the pairs that say so
-- order: 145
-- narrow
-- column kind: {kinds}
-- column subject_kind: what is suspect: photo, pair or name
-- column subject: photo id, pair id or name
-- column blamed_photo: photo that has the wrong name; null where either of two may have it
-- column right_name: name that the blamed photo should have; null where the rule cannot tell
-- column supporting_pairs: ids of the pairs that say so; the first is the one to look at
-- column photos: the two photos of the first pair, where it may not have been scored; null else
-- column score: suspicion in [0, 1]; 1 = most suspect
-- column words: what the pictures say against the names; of a question that was answered what speaks against the answer
-- column asks: kind of the question in `reviews` that it asks a person; empty for a rule that asks none

-- The union of all rules of the folder suspects/, without what a person has answered and without photos and pairs of photos that a
-- person called bad. What new photos say otherwise of is asked again, whether a rule still finds it or not.
WITH found AS (
    SELECT
        *,
        if(asks = 'names', least(subject, right_name), subject) AS asked_of,
        if(asks = 'names', greatest(subject, right_name), NULL) AS asked_with
    FROM (
{rules}
    )
    WHERE score >= suspicious()
),
answered AS (
    FROM reviews WHERE applies AND review_id NOT IN (SELECT review_id FROM contradicted_reviews)
),
again AS (
    SELECT
        CASE c.kind WHEN 'name' THEN 'wrong_name' WHEN 'names' THEN 'two_names_one_animal' ELSE 'one_name_two_animals' END AS kind,
        c.kind AS asks,
        if(c.kind = 'name', 'photo', 'name') AS subject_kind,
        c.subject,
        if(c.kind = 'name', c.subject, NULL) AS blamed_photo,
        c.right_name,
        c.supporting_pairs,
        NULL AS photos,
        c.score,
        c.words
    FROM contradicted_reviews AS c
    WHERE NOT EXISTS (
        FROM found AS f WHERE f.asks = c.kind AND f.asked_of = c.subject AND f.asked_with IS NOT DISTINCT FROM c.other
    )
),
asked AS (
    SELECT f.* EXCLUDE (asked_of, asked_with) REPLACE (coalesce(c.words || ' ', '') || f.words AS words)
    FROM found AS f
    LEFT JOIN contradicted_reviews AS c ON c.kind = f.asks AND c.subject = f.asked_of AND c.other IS NOT DISTINCT FROM f.asked_with
    WHERE NOT EXISTS (
        FROM answered AS r WHERE r.kind = f.asks AND r.subject = f.asked_of AND r.other IS NOT DISTINCT FROM f.asked_with
    )
    UNION ALL BY NAME
    FROM again
),
bad AS (SELECT subject AS photo_id FROM reviews WHERE applies AND kind = 'photo' AND verdict = 'bad'),
bad_pairs AS (
    SELECT coalesce(list(pair_id), []) AS pairs FROM pair_scores WHERE photo_a IN (FROM bad) OR photo_b IN (FROM bad)
),
shown AS (
    SELECT s.* REPLACE (list_filter(s.supporting_pairs, lambda pair: NOT list_contains(b.pairs, pair)) AS supporting_pairs)
    FROM asked AS s
    CROSS JOIN bad_pairs AS b
)
SELECT
    kind,
    asks,
    subject_kind,
    subject,
    blamed_photo,
    right_name,
    supporting_pairs,
    photos,
    CAST(greatest(0, least(1, score)) AS DOUBLE) AS score,
    words
FROM shown AS s
WHERE len(supporting_pairs) > 0
  AND NOT EXISTS (
    FROM bad WHERE photo_id = s.blamed_photo OR (
        list_contains(s.photos, photo_id) AND NOT EXISTS (FROM pair_scores AS k WHERE k.pair_id = s.supporting_pairs[1])
    )
)
