-- nearest photos of every photo, by the cosine alone, under current names; many more than are paired
-- order: 45
-- column photo: the photo that looks
-- column other: the photo that it sees
-- column identity: current name of the photo; null when unknown
-- column other_identity: current name of the other photo; null when unknown
-- column rank: place of the other photo among the photo's neighbours
-- column own_name_rank: the same among photos of its name; null for others, and beyond the number kept
-- column other_name_rank: the same among photos of other known names; null for others, and beyond the number kept

WITH
-- Numbers in the order of ids, and one per name and encounter: they are joined, compared and sorted faster than texts.
numbered AS MATERIALIZED (
    SELECT
        CAST(row_number() OVER (ORDER BY photo_id) AS INTEGER) AS number,
        photo_id,
        chip_id,
        identity,
        CASE WHEN identity IS NOT NULL THEN dense_rank() OVER (ORDER BY identity) END AS name,
        CASE WHEN encounter IS NOT NULL THEN dense_rank() OVER (ORDER BY encounter) END AS meeting,
        CASE WHEN same_species AND species IS NOT NULL THEN dense_rank() OVER (ORDER BY species) END AS kind,
        CASE WHEN same_viewpoint AND viewpoint IS NOT NULL THEN dense_rank() OVER (ORDER BY viewpoint) END AS side
    FROM photos
    CROSS JOIN current_run
),
-- What today's catalogue allows, as in `pairs`; of a pair that is stored twice the first shard counts.
candidates AS (
    SELECT a.number AS a, b.number AS b, arg_min(n.cosine, n.shard) AS cosine, any_value(a.name = b.name) AS same_identity
    FROM run_neighbours AS n
    JOIN numbered AS a ON a.photo_id = n.photo_a
    JOIN numbered AS b ON b.photo_id = n.photo_b
    WHERE a.chip_id = n.chip_a
      AND b.chip_id = n.chip_b
      AND coalesce(a.meeting <> b.meeting, true)
      AND coalesce(a.kind = b.kind, true)
      AND coalesce(a.side = b.side, true)
    GROUP BY ALL
),
sides AS (
    SELECT a AS photo, b AS other, cosine, same_identity FROM candidates
    UNION ALL
    SELECT b, a, cosine, same_identity FROM candidates
),
-- Neighbours by falling cosine, ties by the other photo's id: one order serves all three ranks.
ranked AS (
    SELECT
        *,
        row_number() OVER nearest AS place,
        count(*) FILTER (same_identity) OVER nearest AS own_place,
        count(*) FILTER (NOT same_identity) OVER nearest AS other_place
    FROM sides
    WINDOW nearest AS (PARTITION BY photo ORDER BY cosine DESC, other ROWS UNBOUNDED PRECEDING)
),
places AS (
    SELECT
        photo,
        other,
        cosine,
        CASE WHEN place <= neighbours THEN place END AS rank,
        CASE WHEN same_identity AND own_place <= neighbours THEN own_place END AS own_name_rank,
        CASE WHEN NOT same_identity AND other_place <= neighbours THEN other_place END AS other_name_rank
    FROM ranked
    CROSS JOIN current_run
)
SELECT
    p.photo_id AS photo,
    o.photo_id AS other,
    p.identity,
    o.identity AS other_identity,
    cosine,
    CAST(rank AS INTEGER) AS rank,
    CAST(own_name_rank AS INTEGER) AS own_name_rank,
    CAST(other_name_rank AS INTEGER) AS other_name_rank
FROM places
JOIN numbered AS p ON p.number = photo
JOIN numbered AS o ON o.number = other
WHERE coalesce(rank, own_name_rank, other_name_rank) IS NOT NULL
