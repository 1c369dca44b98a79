-- what could not be processed and still cannot
-- order: 100
-- narrow

-- Failures that still stand: of the photo's current entry, of its current chip, of a current pair; and not made good by a
-- later attempt.
SELECT * EXCLUDE (shard)
FROM run_failures AS f
WHERE CASE stage
    WHEN 'ingest' THEN EXISTS (FROM photos AS p WHERE p.photo_id = f.item AND p.revision = f.revision)
    WHEN 'embed' THEN EXISTS (FROM photos AS p WHERE p.photo_id = f.item AND p.chip_id = f.chip_id)
        AND CASE
            WHEN f.fingerprint = (SELECT keypoints_fingerprint FROM current_run)
                THEN NOT EXISTS (FROM run_keypoints AS k WHERE k.photo_id = f.item AND k.chip_id = f.chip_id)
            ELSE NOT EXISTS (FROM run_embeddings AS e WHERE e.photo_id = f.item AND e.chip_id = f.chip_id)
        END
    WHEN 'score' THEN EXISTS (FROM pairs AS p WHERE p.pair_id = f.item)
        AND NOT EXISTS (FROM run_scores AS s WHERE s.pair_id = f.item AND s.layer = coalesce(f.layer, s.layer))
    ELSE EXISTS (FROM pairs AS p WHERE p.pair_id = f.item)
        AND NOT EXISTS (FROM run_explanations AS e WHERE e.pair_id = f.item AND e.layer = coalesce(f.layer, e.layer))
END
QUALIFY row_number() OVER (PARTITION BY stage, item, layer ORDER BY code, shard) = 1
