-- current pairs with how much their pictures speak for one animal, in [0, 1]
-- order: 140
-- narrow
-- column comparable: whether both photos may show one side of an animal
-- column similarity: standing of the cosine: 0 typical of two names, 1 typical of one name
-- column sharpness: standing of the inverted residual mean
-- column coverage: standing of the match coverage
-- column inliers: n_inliers, or 0 where no homography was accepted
-- column geometry: inliers / (inliers + 8)
-- column plausibility: mean of sharpness, coverage and geometry
-- column evidence: sqrt(similarity x plausibility): how much the pictures speak for one animal
-- column sameness: how much they look like one picture rather than two of one animal, in [0, 1]

WITH pieces AS (
    SELECT
        p.*,
        one_side(p.viewpoint_a, p.viewpoint_b) AS comparable,
        accepted_inliers(n_inliers, no_homography_reason) AS inliers,
        -- A catalogue without pairs of two names has 0 as its low end, one without pairs of one name 1 as its high end
        -- (1 / pixel for residuals). A cosine that tells nothing stands in the middle; the two others add nothing.
        coalesce(
            standing(cosine, coalesce(different_cosine, 0), coalesce(high_different_cosine, 0), coalesce(same_cosine, 1)), 0.5
        ) AS similarity,
        coalesce(
            standing(
                coalesce(inverted_residual_mean, 0), coalesce(different_sharpness, 0),
                coalesce(high_different_sharpness, 0), coalesce(same_sharpness, 1)
            ), 0
        ) AS sharpness,
        coalesce(
            standing(
                coalesce(match_coverage, 0), coalesce(different_coverage, 0),
                coalesce(high_different_coverage, 0), coalesce(same_coverage, 1)
            ), 0
        ) AS coverage,
        -- Chance alone brings about 8 inliers, which count half; 40 count 5/6.
        inliers / (inliers + 8.0) AS geometry,
        coalesce(high_same_inliers, 0) AS usual_inliers,
        coalesce(same_cosine, 0.9) AS usual_cosine
    FROM pair_scores AS p
    JOIN typical AS t
        -- The species' own row where there is one, else that of the whole catalogue.
        ON t.species IS NOT DISTINCT FROM CASE
            WHEN p.species_a = p.species_b AND p.species_a IN (SELECT species FROM typical) THEN p.species_a
        END
)
SELECT
    * EXCLUDE (why, rank_a, rank_b, same_name_rank_a, same_name_rank_b, other_name_rank_a, other_name_rank_b,
        homography, usual_inliers, usual_cosine),
    (sharpness + coverage + geometry) / 3 AS plausibility,
    -- Both are needed, so they are multiplied; the root brings the product back to the scale of its factors.
    sqrt(similarity * plausibility) AS evidence,
    -- The same picture: near-identical hashes say so alone. A copy that was turned or cropped shows in
    -- geometry instead: nearly all of its local matches fit one plane, as no second photo of a bending animal does, they
    -- are three times as many as nine in ten pairs of one name have, and the embedding is closer than usual for one name.
    CASE
        WHEN near_identical(hash_distance) THEN 1.0
        WHEN cosine <= usual_cosine THEN 0.0
        ELSE least(1, inliers / greatest(60.0, 3 * usual_inliers))
            * greatest(0, least(1, (inliers / greatest(n_local_matches, 1) - 0.6) / 0.2))
    END AS sameness
FROM pieces
