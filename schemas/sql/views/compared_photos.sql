-- photos of the catalogues of two runs: in which each was, under which name
-- order: 173
-- column was_listed: whether it was in the catalogue of the earlier run
-- column is_listed: whether it is in that of the later one
-- column was_judged: whether the earlier run could compare it
-- column is_judged: whether the later run could
-- column name_then: its name then; null when unknown
-- column name_now: its name now; null when unknown

-- A run's judgement holds all photos that it could compare.
WITH judged AS (
    SELECT s.side, j.photo_id, j.identity
    FROM all_judged_photos AS j
    JOIN compared_states AS s ON j.state = s.state AND j.basis = s.basis AND j.fingerprint = s.judgements_fingerprint
    QUALIFY row_number() OVER (PARTITION BY s.side, j.photo_id ORDER BY j.shard) = 1
),
-- Those that failed are known by their entries: what the catalogue said of each photo at the end of either run, as far as runs
-- say which entries they wrote.
entries AS (
    SELECT s.side, e.photo_id, e.present, e.identity
    FROM photo_entries AS e
    JOIN compared_states AS s ON e.fingerprint = s.photos_fingerprint AND e.run_id <= s.run_id
    QUALIFY row_number() OVER (PARTITION BY s.side, e.photo_id ORDER BY e.revision DESC) = 1
),
seen AS (
    SELECT
        side = 'later' AS now,
        photo_id,
        j.photo_id IS NOT NULL AS judged,
        coalesce(judged OR e.present, false) AS listed,
        if(judged, j.identity, e.identity) AS name
    FROM judged AS j
    FULL JOIN entries AS e USING (side, photo_id)
)
SELECT
    photo_id,
    bool_or(listed AND NOT now) AS was_listed,
    bool_or(listed AND now) AS is_listed,
    bool_or(judged AND NOT now) AS was_judged,
    bool_or(judged AND now) AS is_judged,
    max(name) FILTER (NOT now) AS name_then,
    max(name) FILTER (now) AS name_now
FROM seen
GROUP BY photo_id
HAVING was_listed OR is_listed
