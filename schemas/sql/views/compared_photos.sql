-- photos of the catalogues of two runs: in which each was, under which name
-- order: 173
-- column was_listed: whether it was in the catalogue of the earlier run
-- column is_listed: whether it is in that of the later one
-- column was_judged: whether the earlier run could compare it
-- column is_judged: whether the later run could
-- column name_then: its name then; null when unknown
-- column name_now: its name now; null when unknown

-- A run's judgement holds all photos that it could compare. Those that failed are known by their entries.
WITH earlier AS (
    SELECT photo_id, identity
    FROM all_judged_photos
    WHERE state = (SELECT earlier_state FROM compared_states) AND basis = (SELECT earlier_basis FROM compared_states)
      AND fingerprint = (SELECT earlier_judgements_fingerprint FROM compared_states)
    QUALIFY row_number() OVER (PARTITION BY photo_id ORDER BY shard) = 1
),
later AS (
    SELECT photo_id, identity
    FROM all_judged_photos
    WHERE state = (SELECT later_state FROM compared_states) AND basis = (SELECT later_basis FROM compared_states)
      AND fingerprint = (SELECT later_judgements_fingerprint FROM compared_states)
    QUALIFY row_number() OVER (PARTITION BY photo_id ORDER BY shard) = 1
),
-- What the catalogue said of each photo at the end of either run, as far as runs say which entries they wrote.
entries_then AS (
    SELECT photo_id, present, identity
    FROM photo_entries
    WHERE fingerprint = (SELECT earlier_photos_fingerprint FROM compared_states)
      AND run_id <= (SELECT earlier FROM compared_states)
    QUALIFY row_number() OVER (PARTITION BY photo_id ORDER BY revision DESC) = 1
),
entries_now AS (
    SELECT photo_id, present, identity
    FROM photo_entries
    WHERE fingerprint = (SELECT later_photos_fingerprint FROM compared_states)
      AND run_id <= (SELECT later FROM compared_states)
    QUALIFY row_number() OVER (PARTITION BY photo_id ORDER BY revision DESC) = 1
)
SELECT
    photo_id,
    e.photo_id IS NOT NULL OR coalesce(t.present, false) AS was_listed,
    l.photo_id IS NOT NULL OR coalesce(n.present, false) AS is_listed,
    e.photo_id IS NOT NULL AS was_judged,
    l.photo_id IS NOT NULL AS is_judged,
    if(was_judged, e.identity, t.identity) AS name_then,
    if(is_judged, l.identity, n.identity) AS name_now
FROM earlier AS e
FULL JOIN later AS l USING (photo_id)
FULL JOIN entries_then AS t USING (photo_id)
FULL JOIN entries_now AS n USING (photo_id)
WHERE was_listed OR is_listed
