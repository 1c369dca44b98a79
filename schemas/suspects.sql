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
CREATE OR REPLACE VIEW typical AS
WITH comparable AS (
    SELECT
        CASE WHEN species_a = species_b THEN species_a END AS species,
        same_identity AS same,
        cosine,
        coalesce(inverted_residual_mean, 0) AS sharpness,  -- no homography: nothing fits, as if residuals were endless
        coalesce(match_coverage, 0) AS coverage,
        CASE WHEN no_homography_reason IS NULL THEN coalesce(n_inliers, 0) ELSE 0 END AS inliers
    FROM pair_scores
    WHERE same_identity IS NOT NULL AND coalesce(viewpoint_a = viewpoint_b, true)
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
HAVING grouping(species) = 1 OR (species IS NOT NULL AND least(different_pairs, same_pairs) >= 20);

-- Where a value lies between the typical one of two names (0) and that of one name (1). The upper end is at least what one
-- in ten pairs of two names exceeds, so that a small gap does not inflate noise. When pairs of one name are no higher than
-- pairs of two names, the value tells nothing: null.
CREATE OR REPLACE MACRO standing(value, low, high_low, high) AS
    CASE WHEN high > low THEN greatest(0, least(1, (value - low) / (greatest(high, high_low) - low))) END;

CREATE OR REPLACE VIEW evidence AS
WITH pieces AS (
    SELECT
        p.*,
        coalesce(p.viewpoint_a = p.viewpoint_b, true) AS comparable,
        -- Inliers count only when their homography was accepted.
        CASE WHEN no_homography_reason IS NULL THEN coalesce(n_inliers, 0) ELSE 0 END AS inliers,
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
    * EXCLUDE (why, rank_a, rank_b, same_name_rank_a, same_name_rank_b, homography, usual_inliers, usual_cosine),
    (sharpness + coverage + geometry) / 3 AS plausibility,
    -- Both are needed, so they are multiplied; the root brings the product back to the scale of its factors.
    sqrt(similarity * plausibility) AS evidence,
    -- The same picture: hashes that differ in at most 4 bits say so alone. A copy that was turned or cropped shows in
    -- geometry instead: nearly all of its local matches fit one plane, as no second photo of a bending animal does, they
    -- are three times as many as nine in ten pairs of one name have, and the embedding is closer than usual for one name.
    CASE
        WHEN hash_distance <= 4 THEN 1.0
        WHEN cosine <= usual_cosine THEN 0.0
        ELSE least(1, inliers / greatest(60.0, 3 * usual_inliers))
            * greatest(0, least(1, (inliers / greatest(n_local_matches, 1) - 0.6) / 0.2))
    END AS sameness
FROM pieces;

CREATE OR REPLACE VIEW suspects AS
WITH
-- Pairs whose two names are known: an unknown animal contradicts nobody.
known AS MATERIALIZED (
    FROM evidence WHERE same_identity IS NOT NULL
),
-- Every pair as each of its two photos sees it. Copies and duplicates are no evidence for a name: a picture is always like
-- itself.
sides AS MATERIALIZED (
    SELECT pair_id, photo_a AS photo, photo_b AS other, identity_a AS name, identity_b AS other_name, same_identity,
        comparable, evidence, cosine
    FROM known WHERE sameness < 0.5
    UNION ALL
    SELECT pair_id, photo_b, photo_a, identity_b, identity_a, same_identity, comparable, evidence, cosine
    FROM known WHERE sameness < 0.5
),
-- Best evidence for each photo's own name, over the same side of the animal.
own_best AS MATERIALIZED (
    SELECT
        photo,
        max(evidence) AS own,
        first(pair_id ORDER BY evidence DESC, cosine DESC, pair_id) AS own_pair,
        first(other ORDER BY evidence DESC, cosine DESC, pair_id) AS own_photo
    FROM sides
    WHERE same_identity AND comparable
    GROUP BY photo
),

-- Kind 1. Different name, same animal: the pair's evidence, lifted or lowered by how far it exceeds what the photo's own
-- name offers. Equal is half; half a unit more is full; half a unit less is none. A photo without a comparable photo of
-- its own name cannot defend its name: it is taken as a quarter of a unit ahead.
different_sides AS (
    SELECT s.*, b.own, coalesce(s.evidence - b.own, 0.25) AS ahead
    FROM sides AS s
    LEFT JOIN own_best AS b USING (photo)
    WHERE NOT s.same_identity
),
-- Of the two photos the one that is further ahead is the suspicious one; the other one is not blamed for resembling it.
different_pairs AS MATERIALIZED (
    SELECT *, evidence * greatest(0, least(1, 0.5 + ahead)) AS score
    FROM different_sides
    QUALIFY row_number() OVER (PARTITION BY pair_id ORDER BY ahead DESC, photo) = 1
),
-- A misfiled photo resembles all photos of its true animal: its best pair stands for all, the others are counted.
different_photos AS (
    SELECT
        *,
        count(*) FILTER (score >= 0.1) OVER (PARTITION BY photo, other_name) - 1 AS others
    FROM different_pairs
    QUALIFY row_number() OVER (PARTITION BY photo ORDER BY score DESC, cosine DESC, pair_id) = 1
),
different AS (
    SELECT
        pair_id,
        'different_name_same_animal' AS kind,
        score,
        format('{} ({}) and {} ({}) look like one animal. ', photo, name, other, other_name)
        || CASE
            WHEN own IS NULL THEN format('No other photo of {} shows this side of {}. ', name, photo)
            ELSE format('Evidence {:.2f}; under its own name {} reaches {:.2f} at best. ', evidence, photo, own)
        END
        || CASE
            WHEN others = 1 THEN format('1 more pair ties {} to {}. ', photo, other_name)
            WHEN others > 1 THEN format('{} more pairs tie {} to {}. ', others, photo, other_name)
            ELSE ''
        END AS words
    FROM different_photos
),

-- Kind 2. Same name, different animal: a photo whose best pair under its own name speaks less for one animal than its
-- best pair under another name. The score is the difference. A photo without a comparable partner cannot be judged.
foreign_best AS (
    SELECT photo, other AS foreign_photo, other_name AS foreign_name, evidence AS foreign_evidence
    FROM different_pairs
    QUALIFY row_number() OVER (PARTITION BY photo ORDER BY evidence DESC, cosine DESC, pair_id) = 1
),
same_photos AS (
    SELECT *, own_pair AS pair_id, foreign_evidence - own AS score
    FROM own_best
    JOIN foreign_best USING (photo)
    WHERE own < foreign_evidence
    QUALIFY row_number() OVER (PARTITION BY own_pair ORDER BY score DESC, photo) = 1
),
same AS (
    SELECT
        pair_id,
        'same_name_different_animal' AS kind,
        score,
        format(
            '{} is less like {}, its best partner of the same name (evidence {:.2f}), than like {} named {} ({:.2f}). ',
            photo, own_photo, own, foreign_photo, foreign_name, foreign_evidence
        ) AS words
    FROM same_photos
),

-- Kind 3. Copy: one picture under two names. Duplicates under one name are no contradiction: see view `duplicates`.
copied_sides AS (
    SELECT pair_id, photo_a AS photo, sameness FROM known WHERE NOT same_identity AND sameness >= 0.5
    UNION ALL
    SELECT pair_id, photo_b, sameness FROM known WHERE NOT same_identity AND sameness >= 0.5
),
copied AS (
    SELECT
        pair_id,
        'copy' AS kind,
        sameness AS score,
        format('{} and {} are the same picture under two names, {} and {}. ', photo_a, photo_b, identity_a, identity_b)
        || CASE WHEN hash_distance <= 4 THEN format('{} of 64 bits of their hashes differ. ', hash_distance) ELSE '' END
            AS words
    FROM known
    SEMI JOIN (
        -- The best copy of each photo is enough, unless the pair is the best of its other photo.
        FROM copied_sides QUALIFY row_number() OVER (PARTITION BY photo ORDER BY sameness DESC, pair_id) = 1
    ) USING (pair_id)
),
contradictions AS (
    FROM different UNION ALL FROM same UNION ALL FROM copied
)
-- Rows below 0.1 are left out. Equal scores are ordered by kind and pair, so the ranking is the same every time.
SELECT
    CAST(row_number() OVER (ORDER BY c.score DESC, c.kind, c.pair_id) AS INTEGER) AS rank,
    c.kind,
    CAST(greatest(0, least(1, c.score)) AS DOUBLE) AS score,
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
    c.words
    || format('Cosine {:.2f}', k.cosine)
    || CASE
        WHEN k.no_homography_reason IS NOT NULL THEN ', no homography'
        ELSE format(', {} of {} local matches fit one homography', k.n_inliers, k.n_local_matches)
    END
    || coalesce(format(', mean residual {:.1f} px', k.residual_mean), '')
    || coalesce(format(', match coverage {:.2f}', k.match_coverage), '')
    || '.' AS reason
FROM contradictions AS c
JOIN known AS k USING (pair_id)
WHERE c.score >= 0.1
ORDER BY rank;
