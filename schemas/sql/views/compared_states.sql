-- the states and judgements of the two compared runs
-- order: 170
-- column earlier_basis: of the earlier run: evidence that its judgement rests on, or where the run did not say, the most there is
-- column later_basis: of the later run: evidence that its judgement rests on, or where the run did not say, the most there is
-- column earlier_said: whether the earlier run says itself what its judgement rests on
-- column later_said: whether the later run says itself what its judgement rests on

SELECT
    * REPLACE (
        coalesce(earlier_basis, (
            SELECT max(basis) FROM all_judged_photos
            WHERE state = (SELECT earlier_state FROM compared_runs) AND fingerprint = (SELECT earlier_judgements_fingerprint FROM compared_runs)
        )) AS earlier_basis,
        coalesce(later_basis, (
            SELECT max(basis) FROM all_judged_photos
            WHERE state = (SELECT later_state FROM compared_runs) AND fingerprint = (SELECT later_judgements_fingerprint FROM compared_runs)
        )) AS later_basis
    ),
    c.earlier_basis IS NOT NULL AS earlier_said,
    c.later_basis IS NOT NULL AS later_said
FROM compared_runs AS c
