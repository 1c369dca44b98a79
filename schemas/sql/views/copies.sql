-- pairs of current photos that were compared pixel by pixel, and whether they are one picture saved again
-- order: 112
-- narrow
-- column identity_a: name of photo_a; null when unknown
-- column identity_b: name of photo_b; null when unknown
-- column same_identity: whether both have one name; null when either is unknown

-- Of those that were ever compared the ones that today's catalogue asks for, so that later runs show what a fresh one would.
SELECT
    c.* EXCLUDE (shard, fingerprint),
    a.identity AS identity_a,
    b.identity AS identity_b,
    a.identity = b.identity AS same_identity
FROM (SELECT * FROM run_copies SEMI JOIN copy_candidates USING (pair_id) QUALIFY row_number() OVER (PARTITION BY pair_id ORDER BY shard) = 1) AS c
JOIN photos AS a ON a.photo_id = c.photo_a AND a.chip_id = c.chip_a
JOIN photos AS b ON b.photo_id = c.photo_b AND b.chip_id = c.chip_b
