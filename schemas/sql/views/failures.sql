-- what could not be processed and still cannot
-- order: 100
-- narrow

-- Failures that still stand: of the photo's current entry, of its current chip, of a current pair, as far as the failure
-- names them; and not made good by a later attempt.
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
QUALIFY row_number() OVER (PARTITION BY f.stage, f.item, f.layer ORDER BY f.code, f.shard) = 1
