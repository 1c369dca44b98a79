-- the same picture twice in the catalogue, whatever the names
-- order: 110
-- narrow
-- column same_file: whether file, box and rotation are the same, byte for byte
-- column hash_distance: differing bits (0-4) of the two perceptual hashes; 0 for the same file
-- column path_a: path of photo_a
-- column path_b: path of photo_b

-- Of any names and encounters: one chip, or near-identical hashes.
-- Two animals in one file have one sha256 but two boxes, so two chips: they are no duplicates.
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
    WHERE near_identical(q.hash_distance) AND q.chip_a <> q.chip_b
) AS p
JOIN photos AS a ON a.photo_id = p.photo_a
JOIN photos AS b ON b.photo_id = p.photo_b
