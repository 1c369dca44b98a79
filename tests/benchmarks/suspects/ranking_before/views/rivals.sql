-- pairs of two names as the more suspicious of their two photos sees them
-- order: 143
-- once
-- column photo: the photo that is further ahead
-- column other: the photo of another name that it resembles
-- column name: name of the photo
-- column other_name: name of the other photo
-- column own: the highest evidence that the photo reaches under its own name; null without a comparable photo of it
-- column ahead: how far the pair's evidence exceeds that
-- column score: evidence, lifted or lowered by how far it is ahead, in [0, 1]

-- Equal is half; half a unit more is full; half a unit less is none. A photo without a comparable photo of its own name
-- cannot defend its name: it is taken as a quarter of a unit ahead.
WITH different_sides AS (
    SELECT s.*, b.own, coalesce(s.evidence - b.own, 0.25) AS ahead
    FROM named_sides AS s
    LEFT JOIN own_best AS b USING (photo)
    WHERE NOT s.same_identity
)
-- Of the two photos the one that is further ahead is the suspicious one; the other one is not blamed for resembling it.
SELECT *, evidence * greatest(0, least(1, 0.5 + ahead)) AS score
FROM different_sides
QUALIFY row_number() OVER (PARTITION BY pair_id ORDER BY ahead DESC, photo) = 1
