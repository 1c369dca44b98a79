-- latest verdict on each question that a person answered, unless it was taken back
-- order: 165
-- narrow
-- column reviewers: how many people answered the question, by their latest verdicts; all without a name count as one
-- column agreeing: how many of them gave this verdict
-- column disagreeing: whether people who could tell said different things, or gave different right names

WITH latest AS (
    SELECT
        *,
        count(*) FILTER (verdict <> 'withdrawn') OVER all_of AS reviewers,
        count(*) OVER (PARTITION BY question, verdict) AS agreeing,
        min(verdict) FILTER (verdict NOT IN ('withdrawn', 'cannot_tell')) OVER all_of
        <> max(verdict) FILTER (verdict NOT IN ('withdrawn', 'cannot_tell')) OVER all_of
        OR (min(right_name) OVER all_of <> max(right_name) OVER all_of) IS TRUE AS disagreeing
    FROM opinions
    WINDOW all_of AS (PARTITION BY question)
    QUALIFY row_number() OVER (PARTITION BY question ORDER BY verdict = 'withdrawn', "at" DESC, review_id DESC) = 1
)
SELECT * REPLACE (disagreeing IS TRUE AS disagreeing)
FROM latest
WHERE verdict <> 'withdrawn'
