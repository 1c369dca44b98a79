-- the two compared runs, a row each: what their catalogues, judgements and suspects lie under
-- order: 170
-- column side: earlier or later
-- column run_id: that run; null where there is none
-- column basis: evidence that its judgement rests on, or where the run did not say, the most there is
-- column said: whether the run says itself what its judgement rests on
-- column state: hash of the state of the catalogue that it saw
-- column photos_fingerprint: partition of its photos
-- column judgements_fingerprint: partition of its judgement
-- column suspects_fingerprint: partition of its suspects

SELECT
    side,
    run_id,
    state,
    coalesce(
        s.basis,
        (SELECT max(basis) FROM all_judged_photos AS j WHERE j.state = s.state AND j.fingerprint = s.judgements_fingerprint)
    ) AS basis,
    s.basis IS NOT NULL AS said,
    photos_fingerprint,
    judgements_fingerprint,
    suspects_fingerprint
FROM (
    SELECT
        'earlier' AS side, earlier AS run_id, earlier_state AS state, earlier_basis AS basis,
        earlier_photos_fingerprint AS photos_fingerprint, earlier_judgements_fingerprint AS judgements_fingerprint,
        earlier_suspects_fingerprint AS suspects_fingerprint
    FROM compared_runs
    UNION ALL
    SELECT
        'later', later, later_state, later_basis, later_photos_fingerprint, later_judgements_fingerprint, later_suspects_fingerprint
    FROM compared_runs
) AS s
