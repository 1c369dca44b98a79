-- suspects of two runs, the earlier's beside the later's on the same question
-- order: 177
-- column question: what is asked, whatever the rank: the kind, then the photo, the names or the two photos
-- column earlier: the suspect as the earlier run ranked it; null where it did not
-- column later: the suspect as the later run ranked it; null where it did not

-- Rows of a run that did not say what its judgement rests on do not say it either.
WITH earlier AS (
    SELECT s AS ranked, question_of(kind, subject_kind, blamed_photo, photo_a, photo_b, identity_a, identity_b) AS question
    FROM all_suspects AS s
    WHERE state = (SELECT earlier_state FROM compared_states) AND fingerprint = (SELECT earlier_suspects_fingerprint FROM compared_states)
      AND coalesce(basis = (SELECT earlier_basis FROM compared_states), NOT (SELECT earlier_said FROM compared_states))
    QUALIFY row_number() OVER (PARTITION BY question ORDER BY basis DESC NULLS LAST, shard, rank) = 1
),
later AS (
    SELECT s AS ranked, question_of(kind, subject_kind, blamed_photo, photo_a, photo_b, identity_a, identity_b) AS question
    FROM all_suspects AS s
    WHERE state = (SELECT later_state FROM compared_states) AND fingerprint = (SELECT later_suspects_fingerprint FROM compared_states)
      AND coalesce(basis = (SELECT later_basis FROM compared_states), NOT (SELECT later_said FROM compared_states))
    QUALIFY row_number() OVER (PARTITION BY question ORDER BY basis DESC NULLS LAST, shard, rank) = 1
)
SELECT question, e.ranked AS earlier, l.ranked AS later
FROM earlier AS e
FULL JOIN later AS l USING (question)
