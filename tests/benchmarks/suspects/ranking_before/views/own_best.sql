-- best evidence for each photo's own name, over the same side of the animal
-- order: 142
-- once
-- column photo: a photo with a comparable photo of its name
-- column own: the highest evidence that it reaches under its own name
-- column own_pair: the pair that reaches it
-- column own_photo: the other photo of that pair

SELECT
    photo,
    max(evidence) AS own,
    first(pair_id ORDER BY evidence DESC, cosine DESC, pair_id) AS own_pair,
    first(other ORDER BY evidence DESC, cosine DESC, pair_id) AS own_photo
FROM named_sides
WHERE same_identity AND comparable
GROUP BY photo
