-- What is current, as views.
--
-- Tables only grow. `run_TABLE` holds every row stored under the fingerprints of the run that is looked at (`current_run`,
-- one row); the views below pick the rows that today's catalogue calls for. New photos displace old neighbours, corrected
-- names and withdrawn photos take effect, and nothing is rewritten.
--
-- A killed run can leave rows that a later run computes again in another shard: of equal keys the first shard counts.

-- Photos of the catalogue: the highest revision of each, unless that one says that the photo was withdrawn.
CREATE OR REPLACE VIEW photos AS
SELECT * EXCLUDE (shard)
FROM run_photos
QUALIFY row_number() OVER (PARTITION BY photo_id ORDER BY revision DESC, shard) = 1 AND present;

-- Embeddings and keypoints of what the model sees today; the chip changes with file, box and rotation.
CREATE OR REPLACE VIEW embeddings AS
SELECT * EXCLUDE (shard)
FROM run_embeddings
SEMI JOIN photos USING (photo_id, chip_id)
SEMI JOIN (SELECT photo_id, chip_id, min(shard) AS shard FROM run_embeddings GROUP BY ALL) USING (photo_id, chip_id, shard);

CREATE OR REPLACE VIEW keypoints AS
SELECT * EXCLUDE (shard)
FROM run_keypoints
SEMI JOIN photos USING (photo_id, chip_id)
SEMI JOIN (SELECT photo_id, chip_id, min(shard) AS shard FROM run_keypoints GROUP BY ALL) USING (photo_id, chip_id, shard);

-- Pairs of the current catalogue.
CREATE OR REPLACE VIEW pairs AS
WITH
-- Stored candidates whose two chips are current and that today's catalogue allows: never two photos of one encounter.
candidates AS (
    SELECT
        p.* EXCLUDE (shard),
        a.identity AS identity_a,
        b.identity AS identity_b,
        a.identity = b.identity AS same_identity,
        a.viewpoint AS viewpoint_a,
        b.viewpoint AS viewpoint_b,
        a.species AS species_a,
        b.species AS species_b,
        -- The same picture, saved again or in another size (of 64 bits), under two names or an unknown one. A picture
        -- without any contrast has hash 0 and is like every other such picture.
        p.hash_distance <= 4 AND a.perceptual_hash <> 0 AND b.perceptual_hash <> 0 AND (a.identity = b.identity) IS NOT TRUE
            AS is_copy
    FROM (SELECT * FROM run_pairs QUALIFY row_number() OVER (PARTITION BY pair_id ORDER BY shard) = 1) AS p
    JOIN photos AS a ON a.photo_id = p.photo_a AND a.chip_id = p.chip_a
    JOIN photos AS b ON b.photo_id = p.photo_b AND b.chip_id = p.chip_b
    CROSS JOIN current_run AS r
    WHERE coalesce(a.encounter <> b.encounter, true)
      AND (NOT r.same_species OR coalesce(a.species = b.species, true))
      AND (NOT r.same_viewpoint OR coalesce(a.viewpoint = b.viewpoint, true))
),
-- Every pair as each of its two photos sees it.
sides AS (
    SELECT pair_id, true AS is_a, photo_a AS photo, photo_b AS other, cosine, same_identity IS TRUE AS same,
        is_copy, hash_distance
    FROM candidates
    UNION ALL
    SELECT pair_id, false, photo_b, photo_a, cosine, same_identity IS TRUE, is_copy, hash_distance FROM candidates
),
-- Neighbours by falling cosine, ties by the other photo's id: over all candidates, and over those of one name.
ranked AS (
    SELECT
        pair_id,
        is_a,
        same,
        row_number() OVER (PARTITION BY photo ORDER BY cosine DESC, other) AS place,
        row_number() OVER (PARTITION BY photo, same ORDER BY cosine DESC, other) AS place_in_name,
        is_copy AND row_number() OVER (PARTITION BY photo, is_copy ORDER BY hash_distance, other) <= top_k AS copy
    FROM sides
    CROSS JOIN current_run
),
-- Back to one row per pair; a place beyond k is null.
places AS (
    SELECT
        pair_id,
        max(place) FILTER (is_a AND place <= top_k) AS rank_a,
        max(place) FILTER (NOT is_a AND place <= top_k) AS rank_b,
        max(place_in_name) FILTER (is_a AND same AND place_in_name <= same_name_k) AS same_name_rank_a,
        max(place_in_name) FILTER (NOT is_a AND same AND place_in_name <= same_name_k) AS same_name_rank_b,
        bool_or(coalesce(copy, false)) AS copy
    FROM ranked
    CROSS JOIN current_run
    GROUP BY pair_id
)
SELECT
    c.* EXCLUDE (is_copy),
    CAST(rank_a AS INTEGER) AS rank_a,
    CAST(rank_b AS INTEGER) AS rank_b,
    CAST(same_name_rank_a AS INTEGER) AS same_name_rank_a,
    CAST(same_name_rank_b AS INTEGER) AS same_name_rank_b,
    list_filter(
        [
            if(rank_a IS NOT NULL OR rank_b IS NOT NULL, 'top_k', NULL),
            if(same_name_rank_a IS NOT NULL OR same_name_rank_b IS NOT NULL, 'same_name', NULL),
            if(copy, 'copy', NULL)
        ],
        lambda reason: reason IS NOT NULL
    ) AS why
FROM candidates AS c
JOIN places USING (pair_id)
WHERE len(why) > 0;

-- Scores, matches, relevances and pictures of current pairs, for every layer.
CREATE OR REPLACE VIEW scores AS
SELECT * EXCLUDE (shard)
FROM run_scores
SEMI JOIN pairs USING (pair_id)
QUALIFY row_number() OVER (PARTITION BY pair_id, layer ORDER BY shard) = 1;

CREATE OR REPLACE VIEW matches AS
SELECT * EXCLUDE (shard)
FROM run_matches
SEMI JOIN pairs USING (pair_id)
SEMI JOIN (SELECT pair_id, layer, min(shard) AS shard FROM run_matches GROUP BY ALL) USING (pair_id, layer, shard);

CREATE OR REPLACE VIEW relevances AS
SELECT * EXCLUDE (shard)
FROM run_relevances
SEMI JOIN pairs USING (pair_id)
SEMI JOIN (SELECT pair_id, layer, min(shard) AS shard FROM run_relevances GROUP BY ALL) USING (pair_id, layer, shard);

CREATE OR REPLACE VIEW explanations AS
SELECT * EXCLUDE (shard)
FROM run_explanations
SEMI JOIN pairs USING (pair_id)
SEMI JOIN (SELECT pair_id, layer, min(shard) AS shard FROM run_explanations GROUP BY ALL) USING (pair_id, layer, shard);

-- Failures that still stand: of the photo's current entry, of its current chip, of a current pair, as far as the failure
-- names them; and not made good by a later attempt.
CREATE OR REPLACE VIEW failures AS
SELECT f.* EXCLUDE (shard)
FROM run_failures AS f
JOIN failing_stages AS s USING (stage)
WHERE CASE s.items
    WHEN 'photo' THEN EXISTS (
        FROM photos AS p
        WHERE p.photo_id = f.item
          AND (f.revision IS NULL OR p.revision = f.revision)
          AND (f.chip_id IS NULL OR p.chip_id = f.chip_id)
    )
    ELSE EXISTS (FROM pairs AS p WHERE p.pair_id = f.item)
END
AND NOT EXISTS (
    FROM made_good AS m
    WHERE m.stage = f.stage
      AND m.fingerprint = f.fingerprint
      AND m.item = f.item
      AND (f.chip_id IS NULL OR m.chip_id IS NULL OR m.chip_id = f.chip_id)
      AND (f.layer IS NULL OR m.layer IS NULL OR m.layer = f.layer)
)
QUALIFY row_number() OVER (PARTITION BY f.stage, f.item, f.layer ORDER BY f.code, f.shard) = 1;

-- What most questions are about: every current pair with its scores at the layer that ranks.
CREATE OR REPLACE VIEW pair_scores AS
SELECT p.* EXCLUDE (fingerprint), s.* EXCLUDE (pair_id, photo_a, photo_b, shard, fingerprint)
FROM pairs AS p
JOIN (
    SELECT s.*
    FROM run_scores AS s
    JOIN current_run USING (layer)
    QUALIFY row_number() OVER (PARTITION BY pair_id ORDER BY shard) = 1
) AS s USING (pair_id);

-- The same picture twice in the catalogue, whatever the names and encounters: one chip, or hashes that differ in at most
-- 4 of 64 bits. Two animals in one file have one sha256 but two boxes, so two chips: they are no duplicates.
CREATE OR REPLACE VIEW duplicates AS
SELECT
    a.photo_id AS photo_a,
    b.photo_id AS photo_b,
    a.identity AS identity_a,
    b.identity AS identity_b,
    a.identity = b.identity AS same_identity,
    a.chip_id = b.chip_id AS same_file,
    CASE WHEN a.chip_id = b.chip_id THEN 0 ELSE p.hash_distance END AS hash_distance,
    a.path AS path_a,
    b.path AS path_b
FROM (
    SELECT x.photo_id AS photo_a, y.photo_id AS photo_b, 0 AS hash_distance
    FROM photos AS x
    JOIN photos AS y ON x.chip_id = y.chip_id AND x.photo_id < y.photo_id
    UNION
    SELECT q.photo_a, q.photo_b, q.hash_distance
    FROM pairs AS q
    WHERE q.hash_distance <= 4 AND q.chip_a <> q.chip_b
) AS p
JOIN photos AS a ON a.photo_id = p.photo_a
JOIN photos AS b ON b.photo_id = p.photo_b;

-- One row per name: how often and from where the animal was seen, and how well its photos agree with each other.
CREATE OR REPLACE VIEW identities AS
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
GROUP BY identity;

-- One row per run of this warehouse with its last status, newest first. ("at" is a reserved word: renamed here.)
CREATE OR REPLACE VIEW runs AS
SELECT
    * EXCLUDE (shard, fingerprint, "at"),
    min("at") OVER (PARTITION BY run_id) AS started_at,
    "at" AS updated_at,
    date_diff('millisecond', started_at, updated_at) / 1000.0 AS seconds
FROM all_runs
QUALIFY row_number() OVER (PARTITION BY run_id ORDER BY "at" DESC, status = 'started', shard) = 1
ORDER BY run_id DESC;
