-- photos of the catalogue with the run that first saw each and the run of its last change
-- order: 172
-- column first_run: run that first saw the photo; null where no run said so
-- column changed_run: run that saw the last change of its entry or file; the first one where nothing changed

-- Where nothing says who wrote an entry, the first run that judged the photo is taken.
WITH unsaid AS (SELECT DISTINCT photo_id FROM photo_entries WHERE run_id IS NULL),
states AS (
    SELECT state, judgements_fingerprint AS fingerprint, min(run_id) AS run_id
    FROM all_runs
    WHERE status = 'finished'
    GROUP BY ALL
),
judged AS (
    SELECT photo_id, min(s.run_id) AS run_id
    FROM all_judged_photos AS j
    SEMI JOIN unsaid USING (photo_id)
    JOIN states AS s USING (state, fingerprint)
    GROUP BY photo_id
),
said AS (
    SELECT photo_id, min(run_id) AS first_run, max(run_id) FILTER (revision > 0) AS changed_run
    FROM photo_entries
    GROUP BY photo_id
)
SELECT
    photo_id,
    least(s.first_run, j.run_id) AS first_run,
    coalesce(s.changed_run, least(s.first_run, j.run_id)) AS changed_run
FROM said AS s
SEMI JOIN photos USING (photo_id)
LEFT JOIN judged AS j USING (photo_id)
