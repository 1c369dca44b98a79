-- what a judgement takes into account beside the embeddings, one column per signal and one row per scored pair
-- order: 135
-- column about_matches: log(1 + mutual matches of deep features): blurred photos have more of them, so it may speak either way
-- column coverage: match coverage (Eq. 5)
-- column residual: log of the inverted residual mean (Eq. 4); null without homography
-- column homography: 1 where a homography was accepted, 0 where not; null where keypoints were missing
-- column inliers: log(1 + accepted inliers); null where keypoints were missing
-- column local_matches: log(1 + local matches); null where keypoints were missing
-- column weighted_matches: log(1 + local matches weighted by where the model looks)
-- column agreeing_matches: log(1 + local matches that agree with matches of deep features)
-- column weighted_agreeing_matches: log(1 + the same, weighted by where the model looks)

-- A signal is one line here: its higher values must speak for one animal, null is missing. What is no evidence but a circumstance
-- begins with about_ and may speak either way. The judgement takes every column but the first, learns its weight, and drops what
-- does not help on animals that it was not learned from.
SELECT
    p.pair_id,
    ln(1 + p.n_matches) AS about_matches,
    p.match_coverage AS coverage,
    ln(greatest(p.inverted_residual_mean, 1e-6)) AS residual,
    CASE WHEN p.no_homography_reason IS DISTINCT FROM 'no_keypoints' THEN CAST(p.no_homography_reason IS NULL AS INTEGER) END
        AS homography,
    CASE WHEN p.no_homography_reason IS DISTINCT FROM 'no_keypoints' THEN ln(1 + accepted_inliers(p.n_inliers, p.no_homography_reason)) END
        AS inliers,
    CASE WHEN p.no_homography_reason IS DISTINCT FROM 'no_keypoints' THEN ln(1 + p.n_local_matches) END AS local_matches,
    ln(1 + s.weighted_matches) AS weighted_matches,
    ln(1 + s.agreeing_matches) AS agreeing_matches,
    ln(1 + s.weighted_agreeing_matches) AS weighted_agreeing_matches
FROM pair_scores AS p
LEFT JOIN signals AS s ON s.pair_id = p.pair_id AND s.layer = p.layer
