-- pairs that today's catalogue calls for, with ranks, names, and why each was chosen
-- order: 40
-- narrow
-- snapshot: photo_a, photo_b
-- column identity_a: current name of photo_a; null when unknown
-- column identity_b: current name of photo_b; null when unknown
-- column same_identity: whether both have one name; null when either is unknown
-- column viewpoint_a: side of the animal in photo_a
-- column viewpoint_b: side of the animal in photo_b
-- column species_a: species of photo_a
-- column species_b: species of photo_b
-- column rank_a: place of photo_b among photo_a's neighbours; null beyond top_k
-- column rank_b: place of photo_a among photo_b's neighbours; null beyond top_k
-- column same_name_rank_a: the same among photos of photo_a's name; null beyond same_name_k
-- column same_name_rank_b: the same among photos of photo_b's name; null beyond same_name_k
-- column other_name_rank_a: the same among photos of other known names; null beyond other_name_k
-- column other_name_rank_b: the same for photo_b; null beyond other_name_k
-- column why: why the pair is here: top_k, same_name, other_name, copy, reference

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
        -- The same picture, however turned, under two names or an unknown one. A picture without any contrast has hash 0 and is like every
        -- other such picture.
        near_identical(coalesce(p.least_hash_distance, p.hash_distance)) AND a.perceptual_hash <> 0 AND b.perceptual_hash <> 0 AND (a.identity = b.identity) IS NOT TRUE
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
    SELECT pair_id, true AS is_a, photo_a AS photo, photo_b AS other, cosine, same_identity, is_copy,
        coalesce(least_hash_distance, hash_distance) AS hash_distance
    FROM candidates
    UNION ALL
    SELECT pair_id, false, photo_b, photo_a, cosine, same_identity, is_copy,
        coalesce(least_hash_distance, hash_distance)
    FROM candidates
),
-- Neighbours by falling cosine, ties by the other photo's id: over all candidates, over those of one name and over those of two.
ranked AS (
    SELECT
        pair_id,
        is_a,
        same_identity,
        row_number() OVER (PARTITION BY photo ORDER BY cosine DESC, other) AS place,
        row_number() OVER (PARTITION BY photo, same_identity ORDER BY cosine DESC, other) AS place_in_name,
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
        max(place_in_name) FILTER (is_a AND same_identity AND place_in_name <= same_name_k) AS same_name_rank_a,
        max(place_in_name) FILTER (NOT is_a AND same_identity AND place_in_name <= same_name_k) AS same_name_rank_b,
        max(place_in_name) FILTER (is_a AND NOT same_identity AND place_in_name <= other_name_k) AS other_name_rank_a,
        max(place_in_name) FILTER (NOT is_a AND NOT same_identity AND place_in_name <= other_name_k) AS other_name_rank_b,
        bool_or(coalesce(copy, false)) AS copy
    FROM ranked
    CROSS JOIN current_run
    GROUP BY pair_id
),
-- Of each species, an unknown one too, the named photos with the lowest hash.
drawn AS (
    SELECT photo_id, species
    FROM photos
    SEMI JOIN run_embeddings USING (photo_id, chip_id)
    CROSS JOIN current_run
    WHERE identity IS NOT NULL AND "references" > 0
    QUALIFY row_number() OVER (PARTITION BY species ORDER BY sha256(photo_id || chip_id), photo_id) <= reference_photos("references")
),
-- Of their pairs of two names those with the lowest id.
drawn_pairs AS (
    SELECT c.pair_id
    FROM candidates AS c
    JOIN drawn AS a ON a.photo_id = c.photo_a
    JOIN drawn AS b ON b.photo_id = c.photo_b AND b.species IS NOT DISTINCT FROM a.species
    CROSS JOIN current_run
    WHERE NOT c.same_identity
    QUALIFY row_number() OVER (PARTITION BY a.species ORDER BY c.pair_id) <= "references"
)
SELECT
    c.* EXCLUDE (is_copy),
    CAST(rank_a AS INTEGER) AS rank_a,
    CAST(rank_b AS INTEGER) AS rank_b,
    CAST(same_name_rank_a AS INTEGER) AS same_name_rank_a,
    CAST(same_name_rank_b AS INTEGER) AS same_name_rank_b,
    CAST(other_name_rank_a AS INTEGER) AS other_name_rank_a,
    CAST(other_name_rank_b AS INTEGER) AS other_name_rank_b,
    list_filter(
        [
            if(rank_a IS NOT NULL OR rank_b IS NOT NULL, 'top_k', NULL),
            if(same_name_rank_a IS NOT NULL OR same_name_rank_b IS NOT NULL, 'same_name', NULL),
            if(other_name_rank_a IS NOT NULL OR other_name_rank_b IS NOT NULL, 'other_name', NULL),
            if(copy, 'copy', NULL),
            if(d.pair_id IS NOT NULL, 'reference', NULL)
        ],
        lambda reason: reason IS NOT NULL
    ) AS why
FROM candidates AS c
JOIN places USING (pair_id)
LEFT JOIN drawn_pairs AS d USING (pair_id)
WHERE len(why) > 0
