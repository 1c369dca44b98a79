-- what each rule suspects: whom it blames, the name that would fit, and the pairs that say so
-- order: 145
-- narrow
-- column kind: {kinds}
-- column subject_kind: what is suspect: photo, pair or name
-- column subject: photo id, pair id or name
-- column blamed_photo: photo that has the wrong name; null where either of two may have it
-- column right_name: name that the blamed photo should have; null where the rule cannot tell
-- column supporting_pairs: ids of the pairs that say so; the first is the one to look at
-- column photos: the two photos of the first pair, where it may not have been scored; null else
-- column score: suspicion in [0, 1]; 1 = most suspect
-- column words: what the pictures say against the names
-- column asks: kind of the question in `reviews` that it asks a person; empty for a rule that asks none

-- The union of all rules of the folder suspects/, without what a person has answered and without photos that a person called bad.
SELECT
    kind,
    asks,
    subject_kind,
    subject,
    blamed_photo,
    right_name,
    supporting_pairs,
    photos,
    CAST(greatest(0, least(1, score)) AS DOUBLE) AS score,
    words
FROM (
{rules}
) AS s
WHERE score >= suspicious()
  AND NOT EXISTS (
    FROM reviews AS r
    WHERE r.applies AND r.kind = s.asks
      AND r.subject = if(r.other IS NULL, s.subject, least(s.subject, s.right_name))
      AND r.other IS NOT DISTINCT FROM if(r.other IS NULL, NULL, greatest(s.subject, s.right_name))
  )
  AND NOT EXISTS (
    FROM reviews AS r WHERE r.applies AND r.kind = 'photo' AND r.verdict = 'bad' AND r.subject = s.blamed_photo
  )
