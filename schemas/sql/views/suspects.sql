-- ranked contradictions between pictures and names
-- order: 150
-- narrow
-- snapshot: rank
-- column kind: {kinds}
-- column score: suspicion in [0, 1]; of photos and names the probability
-- column blamed_photo: photo that has the wrong name; null where either of two may have it, and for names
-- column proposed_name: name that would fit; null where the rule cannot tell
-- column probability: that the names are wrong so; of copies how well the pictures agree

-- What the rules suspect, each shown by its first pair. Equal scores are ordered by kind and pair, so the ranking is the
-- same every time.
SELECT
    CAST(row_number() OVER (ORDER BY s.score DESC, s.kind, k.pair_id) AS INTEGER) AS rank,
    s.kind,
    s.score,
    k.pair_id,
    k.photo_a,
    k.photo_b,
    k.identity_a,
    k.identity_b,
    k.cosine,
    k.inverted_residual_mean,
    k.match_coverage,
    k.n_matches,
    k.n_inliers,
    s.blamed_photo,
    s.right_name AS proposed_name,
    s.score AS probability,
    s.words
    || format(' Cosine {:.2f}', k.cosine)
    || CASE
        WHEN k.no_homography_reason IS NOT NULL THEN ', no homography'
        ELSE format(', {} of {} local matches fit one homography', k.n_inliers, k.n_local_matches)
    END
    || coalesce(format(', mean residual {:.1f} px', k.residual_mean), '')
    || coalesce(format(', match coverage {:.2f}', k.match_coverage), '')
    || '.' AS reason
FROM suspicions AS s
JOIN evidence AS k ON k.pair_id = s.supporting_pairs[1]
ORDER BY rank
