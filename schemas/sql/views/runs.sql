-- runs of this warehouse with their last status, newest first
-- order: 160
-- column started_at: when the run started
-- column updated_at: when its last status was written
-- column seconds: seconds between the two

-- One row per run of this warehouse with its last status, newest first. ("at" is a reserved word: renamed here.)
SELECT
    * EXCLUDE (shard, fingerprint, "at"),
    min("at") OVER (PARTITION BY run_id) AS started_at,
    "at" AS updated_at,
    date_diff('millisecond', started_at, updated_at) / 1000.0 AS seconds
FROM all_runs
QUALIFY row_number() OVER (PARTITION BY run_id ORDER BY "at" DESC, status = 'started', shard) = 1
ORDER BY run_id DESC
