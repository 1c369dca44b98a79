-- pairs of two known names as each of their two photos sees them; copies of one picture are left out
-- order: 141
-- once
-- column photo: the photo that looks
-- column other: the photo that it sees
-- column name: name of the photo
-- column other_name: name of the other photo

-- An unknown animal contradicts nobody. Copies and duplicates are no evidence for a name: a picture is always like itself.
SELECT pair_id, photo_a AS photo, photo_b AS other, identity_a AS name, identity_b AS other_name, same_identity,
    comparable, evidence, cosine
FROM evidence
WHERE same_identity IS NOT NULL AND sameness < 0.5
UNION ALL
SELECT pair_id, photo_b, photo_a, identity_b, identity_a, same_identity, comparable, evidence, cosine
FROM evidence
WHERE same_identity IS NOT NULL AND sameness < 0.5
