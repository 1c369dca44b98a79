-- current pairs that may be one picture saved again: nearest photos, near-identical hashes, or many local matches
-- order: 111
-- narrow

-- Whatever the names: a few pairs per photo, which the stage `verify` compares pixel by pixel.
WITH sides AS (
    SELECT pair_id, photo_a AS photo, photo_b AS other, accepted_inliers(n_inliers, no_homography_reason) AS inliers
    FROM pair_scores
    UNION ALL
    SELECT pair_id, photo_b, photo_a, accepted_inliers(n_inliers, no_homography_reason)
    FROM pair_scores
),
most_matched AS (
    SELECT pair_id
    FROM sides
    WHERE inliers >= many_inliers()
    QUALIFY row_number() OVER (PARTITION BY photo ORDER BY inliers DESC, other) <= few_copies()
)
SELECT pair_id, photo_a, photo_b, chip_a, chip_b
FROM pairs
WHERE near_identical(coalesce(least_hash_distance, hash_distance))
    OR least(rank_a, rank_b) <= few_copies()
    OR pair_id IN (FROM most_matched)
