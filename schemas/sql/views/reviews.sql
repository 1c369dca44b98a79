-- latest verdict on each question that a person answered, unless it was taken back
-- order: 165
-- narrow
-- column applies: whether it is about what is current: the chips and the names that it asked about
-- column subject: what it is about: pair id, photo id or name; of two names the first by the alphabet
-- column other: the second of two names; null otherwise
-- column reviewers: how many people answered the question, by their latest verdicts; all without a name count as one
-- column agreeing: how many of them gave this verdict

-- A question about pictures is a kind with the chips shown; that of a photo's name is about that name, too. A question about
-- names is about these, whichever photos stood for them.
WITH verdicts AS (
    FROM all_reviews QUALIFY row_number() OVER (PARTITION BY review_id ORDER BY shard) = 1
),
-- What everybody said last.
opinions AS (
    SELECT
        *,
        CASE kind
            WHEN 'name' THEN photo_a
            WHEN 'photo' THEN photo_a
            WHEN 'names' THEN least(identity_a, identity_b)
            WHEN 'split' THEN identity_a
            ELSE pair_id
        END AS subject,
        if(kind = 'names', greatest(identity_a, identity_b), NULL) AS other,
        (
            kind,
            subject,
            other,
            if(kind IN ('name', 'photo'), chip_a, NULL),
            if(kind = 'name', identity_a, NULL)
        ) AS question
    FROM verdicts
    QUALIFY row_number() OVER (PARTITION BY question, reviewer ORDER BY "at" DESC, review_id DESC) = 1
),
latest AS (
    SELECT
        *,
        count(*) FILTER (verdict <> 'withdrawn') OVER (PARTITION BY question) AS reviewers,
        count(*) OVER (PARTITION BY question, verdict) AS agreeing
    FROM opinions
    QUALIFY row_number() OVER (PARTITION BY question ORDER BY verdict = 'withdrawn', "at" DESC, review_id DESC) = 1
)
SELECT
    r.* EXCLUDE (question, fingerprint, shard, reviewers, agreeing),
    CASE
        WHEN r.kind IN ('names', 'split') THEN a.identity = r.identity_a AND b.identity = r.identity_b
        ELSE (r.photo_b IS NULL OR b.chip_id = r.chip_b)
            AND a.chip_id = r.chip_a
            AND (r.kind <> 'name' OR a.identity = r.identity_a)
    END IS TRUE AS applies,
    r.reviewers,
    r.agreeing
FROM latest AS r
LEFT JOIN photos AS a ON a.photo_id = r.photo_a
LEFT JOIN photos AS b ON b.photo_id = r.photo_b
WHERE r.verdict <> 'withdrawn'
