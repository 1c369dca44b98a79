-- answered questions that need a second look: one person answered them, or people disagree
-- order: 167
-- narrow
-- column verdicts: what people said last, most recent first
-- column people: who said it, in the same order; null where nobody said who they are
-- column why: one reviewer, or disagreement

SELECT
    any_value(r.kind) AS kind,
    any_value(r.subject) AS subject,
    any_value(r.other) AS other,
    if(any_value(r.disagreeing), 'disagreement', 'one reviewer') AS why,
    list(o.verdict ORDER BY o."at" DESC, o.review_id) AS verdicts,
    list(o.reviewer ORDER BY o."at" DESC, o.review_id) AS people,
    any_value(r.photo_a) AS photo_a,
    any_value(r.photo_b) AS photo_b,
    any_value(r.identity_a) AS identity_a,
    any_value(r.identity_b) AS identity_b,
    any_value(r.probability) AS probability,
    r.question
FROM reviews AS r
JOIN opinions AS o ON o.question = r.question AND o.verdict <> 'withdrawn'
WHERE r.applies AND NOT r.carried AND (r.reviewers = 1 OR r.disagreeing)
GROUP BY r.question
ORDER BY why, kind, subject, other
