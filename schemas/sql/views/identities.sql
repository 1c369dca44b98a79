-- one row per name: photos, encounters, and how well its photos agree
-- order: 120
-- narrow
-- column photos: photos under the name
-- column encounters: encounters under the name
-- column viewpoints: sides that were seen
-- column first_taken_at: first date under the name
-- column last_taken_at: last date under the name
-- column same_name_pairs: scored pairs within the name
-- column mean_cosine: mean cosine of those pairs
-- column mean_match_coverage: mean match coverage (Eq. 5) of those pairs
-- column mean_inverted_residual_mean: mean inverted residual mean (Eq. 4) of those pairs, 1 / chip pixels
-- column mean_n_inliers: mean number of local matches that the homographies of those pairs explain

-- One row per name: how often and from where the animal was seen, and how well its photos agree with each other.
WITH agreement AS (
    SELECT
        identity_a AS identity,
        count(*) AS same_name_pairs,
        avg(cosine) AS mean_cosine,
        avg(match_coverage) AS mean_match_coverage,
        avg(inverted_residual_mean) AS mean_inverted_residual_mean,
        avg(n_inliers) AS mean_n_inliers
    FROM pair_scores
    WHERE same_identity
    GROUP BY identity_a
)
SELECT
    identity,
    any_value(species ORDER BY species) AS species,
    count(*) AS photos,
    count(DISTINCT encounter) AS encounters,
    list_sort(list(DISTINCT viewpoint) FILTER (viewpoint IS NOT NULL)) AS viewpoints,
    min(taken_at) AS first_taken_at,
    max(taken_at) AS last_taken_at,
    coalesce(any_value(same_name_pairs), 0) AS same_name_pairs,
    any_value(mean_cosine) AS mean_cosine,
    any_value(mean_match_coverage) AS mean_match_coverage,
    any_value(mean_inverted_residual_mean) AS mean_inverted_residual_mean,
    any_value(mean_n_inliers) AS mean_n_inliers
FROM photos
LEFT JOIN agreement USING (identity)
WHERE identity IS NOT NULL
GROUP BY identity
