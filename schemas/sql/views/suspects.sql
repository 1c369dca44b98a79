-- ranked contradictions between pictures and names
-- order: 150
-- narrow
-- snapshot: rank
-- column kind: {kinds}
-- column pair_id: hash of both photo ids and both chip ids; of names perhaps of a pair that was never scored
-- column cosine: cosine of the two embeddings; null for a pair that was never scored
-- column score: suspicion in [0, 1]; of photos and names the probability
-- column blamed_photo: photo that has the wrong name; null where either of two may have it, and for names
-- column proposed_name: name that would fit; null where the rule cannot tell
-- column asks: kind of the question in `reviews` that it asks a person; empty for a rule that asks none
-- column subject: what is suspect: photo id, pair id or name
-- column probability: that the names are wrong so; of copies how well the pictures agree

-- What the rules suspect, each shown by its first pair, which for names may be one that nobody has explained. Equal scores are
-- ordered by kind and pair, so the ranking is the same every time.
SELECT
    CAST(row_number() OVER (ORDER BY s.score DESC, s.kind, s.supporting_pairs[1]) AS INTEGER) AS rank,
    s.kind,
    s.score,
    s.supporting_pairs[1] AS pair_id,
    a.photo_id AS photo_a,
    b.photo_id AS photo_b,
    a.identity AS identity_a,
    b.identity AS identity_b,
    k.cosine,
    k.inverted_residual_mean,
    k.match_coverage,
    k.n_matches,
    k.n_inliers,
    s.blamed_photo,
    s.right_name AS proposed_name,
    s.score AS probability,
    s.subject_kind,
    s.words
    || CASE
        WHEN k.pair_id IS NULL THEN ' No pair across was explained'
        ELSE format(' Cosine {:.2f}', k.cosine)
            || CASE
                WHEN k.no_homography_reason IS NOT NULL THEN ', no homography'
                ELSE format(', {} of {} local matches fit one homography', k.n_inliers, k.n_local_matches)
            END
            || coalesce(format(', mean residual {:.1f} px', k.residual_mean), '')
            || coalesce(format(', match coverage {:.2f}', k.match_coverage), '')
    END
    || '.' AS reason,
    s.asks,
    s.subject
FROM suspicions AS s
LEFT JOIN pair_scores AS k ON k.pair_id = s.supporting_pairs[1]
JOIN photos AS a ON a.photo_id = coalesce(k.photo_a, least(s.photos[1], s.photos[2]))
JOIN photos AS b ON b.photo_id = coalesce(k.photo_b, greatest(s.photos[1], s.photos[2]))
ORDER BY rank
