-- usual cosines, residuals and coverages by same and different name, per species and for all
-- order: 130
-- narrow
-- column species: species, or null for the whole catalogue; species with few pairs have no row
-- column different_pairs: comparable pairs of two names
-- column same_pairs: comparable pairs of one name
-- column different_cosine: median cosine of pairs of two names
-- column high_different_cosine: cosine that one in ten pairs of two names exceeds
-- column same_cosine: median cosine of pairs of one name
-- column different_sharpness: median inverted residual mean of pairs of two names; 0 without homography
-- column high_different_sharpness: inverted residual mean that one in ten pairs of two names exceeds
-- column same_sharpness: median inverted residual mean of pairs of one name; 0 without homography
-- column different_coverage: median match coverage of pairs of two names
-- column high_different_coverage: match coverage that one in ten pairs of two names exceeds
-- column same_coverage: median match coverage of pairs of one name
-- column high_same_inliers: inliers that one in ten pairs of one name exceeds

-- Suspects: pairs of photos whose names do not fit what the pictures say. A first ranking by rules that are spelled out
-- here. Its constants are round numbers, chosen while looking at one drawn catalogue; scores order pairs, they are not
-- probabilities.
--
-- 1. `typical`   what cosines, residuals and coverages this catalogue's pairs usually have, by same and different name
-- 2. `evidence`  per pair, in [0, 1]: how much its pictures speak for one animal, whatever the names
-- 3. `suspects`  three kinds of contradiction between evidence and names, one row per photo and kind

-- One row per species and one for the whole catalogue (species null): coats differ in how well they can be told apart.
-- Medians resist the wrong names that we are looking for, as long as most names are right. Pairs of two sides of an animal
-- (viewpoints known and different) are left out: their coats differ whatever the names.
WITH comparable AS (
    SELECT
        CASE WHEN species_a = species_b THEN species_a END AS species,
        same_identity AS same,
        cosine,
        coalesce(inverted_residual_mean, 0) AS sharpness,  -- no homography: nothing fits, as if residuals were endless
        coalesce(match_coverage, 0) AS coverage,
        accepted_inliers(n_inliers, no_homography_reason) AS inliers
    FROM pair_scores
    WHERE same_identity IS NOT NULL AND one_side(viewpoint_a, viewpoint_b)
)
SELECT
    species,
    count(*) FILTER (NOT same) AS different_pairs,
    count(*) FILTER (same) AS same_pairs,
    quantile_cont(cosine, 0.5) FILTER (NOT same) AS different_cosine,
    quantile_cont(cosine, 0.9) FILTER (NOT same) AS high_different_cosine,
    quantile_cont(cosine, 0.5) FILTER (same) AS same_cosine,
    quantile_cont(sharpness, 0.5) FILTER (NOT same) AS different_sharpness,
    quantile_cont(sharpness, 0.9) FILTER (NOT same) AS high_different_sharpness,
    quantile_cont(sharpness, 0.5) FILTER (same) AS same_sharpness,
    quantile_cont(coverage, 0.5) FILTER (NOT same) AS different_coverage,
    quantile_cont(coverage, 0.9) FILTER (NOT same) AS high_different_coverage,
    quantile_cont(coverage, 0.5) FILTER (same) AS same_coverage,
    quantile_cont(inliers, 0.9) FILTER (same) AS high_same_inliers
FROM comparable
GROUP BY GROUPING SETS ((species), ())
-- A species with few pairs of either class has no typical pair: the whole catalogue speaks for it.
HAVING grouping(species) = 1 OR (species IS NOT NULL AND least(different_pairs, same_pairs) >= 20)
