-- latest verdict on each question that a person answered, unless it was taken back
-- order: 165
-- narrow
-- column applies: whether it is about what is current: the chips shown and, for kind name, the name asked about
-- column reviewers: how many people answered the question, by their latest verdicts; all without a name count as one
-- column agreeing: how many of them gave this verdict

-- A question is a kind with the chips shown; that of a name is about that name, too.
WITH verdicts AS (
    FROM all_reviews QUALIFY row_number() OVER (PARTITION BY review_id ORDER BY shard) = 1
),
-- What everybody said last.
opinions AS (
    SELECT *, (kind, photo_a, photo_b, chip_a, chip_b, if(kind = 'name', identity_a, NULL)) AS question
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
    a.photo_id IS NOT NULL
        AND (r.photo_b IS NULL OR b.photo_id IS NOT NULL)
        AND (r.kind <> 'name' OR a.identity = r.identity_a) IS TRUE AS applies,
    r.reviewers,
    r.agreeing
FROM latest AS r
LEFT JOIN photos AS a ON a.photo_id = r.photo_a AND a.chip_id = r.chip_a
LEFT JOIN photos AS b ON b.photo_id = r.photo_b AND b.chip_id = r.chip_b
WHERE r.verdict <> 'withdrawn'
