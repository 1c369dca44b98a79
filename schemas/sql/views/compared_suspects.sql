-- suspects of two runs, the earlier's beside the later's on the same question
-- order: 177
-- column question: what is asked, whatever the rank: the kind, then the photo, the names or the two photos
-- column earlier: the suspect as the earlier run ranked it; null where it did not
-- column later: the suspect as the later run ranked it; null where it did not

-- Rows of a run that did not say what its judgement rests on do not say it either.
WITH ranked AS (
    SELECT
        t.side,
        s AS suspect,
        question_of(s.kind, s.subject_kind, s.blamed_photo, s.photo_a, s.photo_b, s.identity_a, s.identity_b) AS question
    FROM all_suspects AS s
    JOIN compared_states AS t
        ON s.state = t.state AND s.fingerprint = t.suspects_fingerprint AND coalesce(s.basis = t.basis, NOT t.said)
    QUALIFY row_number() OVER (PARTITION BY t.side, question ORDER BY s.basis DESC NULLS LAST, s.shard, s.rank) = 1
)
SELECT question, e.suspect AS earlier, l.suspect AS later
FROM (FROM ranked WHERE side = 'earlier') AS e
FULL JOIN (FROM ranked WHERE side = 'later') AS l USING (question)
