-- suspects of the earlier of two runs that the later does not list any more
-- order: 179
-- column rank: its rank in the earlier run
-- column probability: that the earlier run gave
-- column identity_a: name of photo_a in the earlier run
-- column identity_b: name of photo_b in the earlier run
-- column because: what has changed: withdrawn (a photo shown left the catalogue), renamed (it has another name), or less suspect

SELECT
    earlier.rank, earlier.kind, earlier.probability, earlier.blamed_photo, earlier.proposed_name, earlier.pair_id,
    earlier.photo_a, earlier.photo_b, earlier.identity_a, earlier.identity_b,
    CASE
        WHEN NOT coalesce(a.is_listed AND b.is_listed, false) THEN 'withdrawn'
        WHEN a.name_now IS DISTINCT FROM earlier.identity_a OR b.name_now IS DISTINCT FROM earlier.identity_b THEN 'renamed'
        ELSE 'less suspect'
    END AS because,
    earlier.reason
FROM compared_suspects
LEFT JOIN compared_photos AS a ON a.photo_id = earlier.photo_a
LEFT JOIN compared_photos AS b ON b.photo_id = earlier.photo_b
WHERE later IS NULL
