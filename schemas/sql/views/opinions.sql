-- what everybody said last of each question, and what that says of the catalogue once it is corrected
-- order: 163
-- narrow
-- column question: text that tells a question from all others
-- column subject: what it is about: pair id, photo id or name; of two names the first by the alphabet
-- column other: the second of two names; null otherwise
-- column carried: whether the verdict was on the names before they were corrected by it
-- column applies: whether it is about what is current: the chips and the names that it asked about

WITH verdicts AS (
    SELECT * EXCLUDE (fingerprint, shard), false AS carried FROM all_reviews
    QUALIFY row_number() OVER (PARTITION BY review_id ORDER BY shard) = 1
),
said AS (
    FROM verdicts
    QUALIFY row_number() OVER (
        PARTITION BY review_question(kind, pair_id, photo_a, chip_a, identity_a, identity_b), reviewer
        ORDER BY "at" DESC, review_id DESC
    ) = 1
),
-- A catalogue that was corrected has answered the questions that its new names would raise. Whoever said that a name is wrong
-- and which is right says that this one is right; two names that were one animal are one name that is one animal; and the two
-- parts of a name are two names of two animals.
carried AS (
    SELECT s.* REPLACE ('right' AS verdict, s.right_name AS identity_a, NULL AS right_name, true AS carried)
    FROM said AS s
    JOIN photos AS a ON a.photo_id = s.photo_a AND a.chip_id = s.chip_a AND a.identity = s.right_name
    WHERE s.kind = 'name' AND s.verdict = 'wrong'
    UNION ALL
    SELECT s.* REPLACE (
        if(s.kind = 'names', 'split', 'names') AS kind, a.identity AS identity_a, b.identity AS identity_b, NULL AS right_name,
        true AS carried
    )
    FROM said AS s
    JOIN photos AS a ON a.photo_id = s.photo_a
    JOIN photos AS b ON b.photo_id = s.photo_b
    WHERE (s.kind = 'names' AND s.verdict = 'one_animal' AND a.identity = b.identity)
        OR (s.kind = 'split' AND s.verdict = 'two_animals' AND a.identity <> b.identity)
),
asked AS (
    SELECT
        *,
        review_subject(kind, pair_id, photo_a, identity_a, identity_b) AS subject,
        review_other(kind, identity_a, identity_b) AS other,
        review_question(kind, pair_id, photo_a, chip_a, identity_a, identity_b) AS question
    FROM (FROM said UNION ALL FROM carried)
    QUALIFY row_number() OVER (PARTITION BY question, reviewer ORDER BY "at" DESC, carried, review_id DESC) = 1
)
SELECT
    r.*,
    CASE
        WHEN r.kind IN ('names', 'split') THEN a.identity = r.identity_a AND b.identity = r.identity_b
        ELSE (r.photo_b IS NULL OR b.chip_id = r.chip_b)
            AND a.chip_id = r.chip_a
            AND (r.kind <> 'name' OR a.identity = r.identity_a)
    END IS TRUE AS applies
FROM asked AS r
LEFT JOIN photos AS a ON a.photo_id = r.photo_a
LEFT JOIN photos AS b ON b.photo_id = r.photo_b
