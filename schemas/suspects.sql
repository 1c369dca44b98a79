-- Suspects: pairs of photos whose names do not fit what the pictures say. First ranking, from fixed rules that are
-- spelled out here; no number below was fitted to labels.
--
-- 1. `typical`   what cosines, residuals and coverages this catalogue's pairs usually have, by same and different name
-- 2. `evidence`  per pair, in [0, 1]: how much its pictures speak for one animal, whatever the names
-- 3. `suspects`  three kinds of contradiction between evidence and names, one row per photo and kind

-- Medians resist the wrong names that we are looking for, as long as most names are right. Pairs of two sides of an
-- animal (viewpoints known and different) are left out: their coats differ whatever the names.
CREATE OR REPLACE VIEW typical AS
WITH comparable AS (
    SELECT
        coalesce(same_identity, false) AS same,
        cosine,
        coalesce(inverted_residual_mean, 0) AS sharpness,  -- no homography: nothing fits, as if residuals were endless
        coalesce(match_coverage, 0) AS coverage,
        CASE WHEN no_homography_reason IS NULL THEN coalesce(n_inliers, 0) ELSE 0 END AS inliers
    FROM pair_scores
    WHERE same_identity IS NOT NULL AND coalesce(viewpoint_a = viewpoint_b, true)
)
SELECT
    count(*) FILTER (NOT same) AS different_pairs,
    count(*) FILTER (same) AS same_pairs,
    median(cosine) FILTER (NOT same) AS different_cosine,
    median(cosine) FILTER (same) AS same_cosine,
    median(sharpness) FILTER (NOT same) AS different_sharpness,
    median(sharpness) FILTER (same) AS same_sharpness,
    median(coverage) FILTER (NOT same) AS different_coverage,
    median(coverage) FILTER (same) AS same_coverage,
    median(inliers) FILTER (same) AS same_inliers
FROM comparable;

-- Where a value lies between the typical one of different names (0) and that of one name (1). When the two classes do
-- not differ in this catalogue the value says nothing: 0.5. `spread` keeps a gap near zero from inflating noise.
CREATE OR REPLACE MACRO standing(value, low, high, spread) AS
    CASE WHEN high <= low THEN 0.5 ELSE greatest(0, least(1, (value - low) / greatest(high - low, spread))) END;

CREATE OR REPLACE VIEW evidence AS
WITH pieces AS (
    SELECT
        p.*,
        coalesce(p.viewpoint_a = p.viewpoint_b, true) AS comparable,
        -- A catalogue without different names has no low end: 0. Without any pair of one name the high end is 1.
        standing(cosine, coalesce(different_cosine, 0), coalesce(same_cosine, 1), 0.05) AS similarity,
        -- Residuals of 1 pixel are as good as any: 1 / pixel is the high end when no pair of one name is known.
        standing(coalesce(inverted_residual_mean, 0), coalesce(different_sharpness, 0), coalesce(same_sharpness, 1), 0.01)
            AS sharpness,
        standing(coalesce(match_coverage, 0), coalesce(different_coverage, 0), coalesce(same_coverage, 1), 0.02) AS coverage,
        -- Inliers count only when their homography was accepted.
        CASE WHEN no_homography_reason IS NULL THEN coalesce(n_inliers, 0) ELSE 0 END AS inliers,
        -- Chance alone brings about 8 inliers, which count half; 40 count 5/6.
        inliers / (inliers + 8.0) AS geometry
    FROM pair_scores AS p
    CROSS JOIN typical
)
SELECT
    * EXCLUDE (why, rank_a, rank_b, same_name_rank_a, same_name_rank_b, homography),
    (sharpness + coverage + geometry) / 3 AS plausibility,
    -- Both are needed, so they are multiplied; the root brings the product back to the scale of its factors.
    sqrt(similarity * plausibility) AS evidence
FROM pieces;

CREATE OR REPLACE VIEW suspects AS
WITH
-- Pairs whose two names are known: an unknown animal contradicts nobody.
known AS MATERIALIZED (
    SELECT
        *,
        -- The same picture: hashes that differ in at most 4 bits say so alone. A copy that was turned or cropped shows in
        -- geometry instead: nearly all of its many local matches fit one plane, as no second photo of a bending animal
        -- does, and the embedding is closer than that of usual pairs of one name.
        CASE
            WHEN hash_distance <= 4 THEN 1.0
            WHEN cosine > t.usual_cosine
                THEN least(1, inliers / greatest(60.0, 4 * t.usual_inliers))
                    * greatest(0, least(1, (inliers / greatest(n_local_matches, 1) - 0.4) / 0.4))
            ELSE 0.0
        END AS sameness
    FROM evidence
    CROSS JOIN (
        SELECT coalesce(same_cosine, 0.9) AS usual_cosine, coalesce(same_inliers, 0) AS usual_inliers FROM typical
    ) AS t
    WHERE same_identity IS NOT NULL
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
-- Best evidence for each photo's own name, over the same side of the animal, and for any other name.
best AS MATERIALIZED (
    SELECT
        photo,
        max(evidence) FILTER (same_identity AND comparable) AS own,
        first(pair_id ORDER BY evidence DESC, cosine DESC, pair_id) FILTER (same_identity AND comparable) AS own_pair,
        first(other ORDER BY evidence DESC, cosine DESC, pair_id) FILTER (same_identity AND comparable) AS own_photo,
        max(evidence) FILTER (NOT same_identity) AS foreign_best,
        first(other ORDER BY evidence DESC, cosine DESC, pair_id) FILTER (NOT same_identity) AS foreign_photo,
        first(other_name ORDER BY evidence DESC, cosine DESC, pair_id) FILTER (NOT same_identity) AS foreign_name
    FROM sides
    GROUP BY photo
),

-- Kind 1. Different name, same animal: the pair's evidence, lifted or lowered by how far it exceeds what the photo's own
-- name offers. Equal is half; half a unit more is full; half a unit less is none. A photo without a comparable photo of
-- its own name cannot defend its name: it is taken as a quarter of a unit ahead.
different_sides AS (
    SELECT s.*, b.own, coalesce(s.evidence - b.own, 0.25) AS ahead
    FROM sides AS s
    LEFT JOIN best AS b USING (photo)
    WHERE NOT s.same_identity
),
-- Of the two photos the one that is further ahead is the suspicious one.
different_pairs AS (
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
            WHEN others > 0 THEN format('{} more pairs tie {} to {}. ', others, photo, other_name)
            ELSE ''
        END AS words
    FROM different_photos
),

-- Kind 2. Same name, different animal: a photo whose best pair under its own name speaks less for one animal than its
-- best pair under another name. The score is the difference. A photo without a comparable partner cannot be judged.
same_photos AS (
    SELECT
        own_pair AS pair_id,
        foreign_best - own AS score,
        photo, own, own_photo, foreign_best, foreign_photo, foreign_name
    FROM best
    WHERE own < foreign_best
    QUALIFY row_number() OVER (PARTITION BY own_pair ORDER BY score DESC, photo) = 1
),
same AS (
    SELECT
        pair_id,
        'same_name_different_animal' AS kind,
        score,
        format(
            '{} is less like {}, its best partner of the same name (evidence {:.2f}), than like {} named {} ({:.2f}). ',
            photo, own_photo, own, foreign_photo, foreign_name, foreign_best
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
