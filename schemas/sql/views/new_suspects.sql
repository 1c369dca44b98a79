-- suspects of the later of two runs that were none in the earlier, or that rest on something new
-- order: 178
-- column rank: its rank in the later run
-- column identity_a: name of photo_a in the later run
-- column identity_b: name of photo_b in the later run
-- column probability_then: probability that the earlier run gave; null where it was not suspect then
-- column because: what is new: evidence (another pair says so), names, probability (it rose by more than .05)

-- What was not suspect then is news only if the pair, a name or the probability is; a list's end trembles from run to run.
WITH compared AS (
    SELECT
        later.*,
        earlier.probability AS probability_then,
        if(earlier IS NULL, n.pair_id IS NOT NULL OR NOT coalesce(a.was_judged AND b.was_judged, false), earlier.pair_id <> later.pair_id)
            AS evidence,
        if(
            earlier IS NULL,
            a.name_then IS DISTINCT FROM later.identity_a OR b.name_then IS DISTINCT FROM later.identity_b,
            earlier.identity_a IS DISTINCT FROM later.identity_a OR earlier.identity_b IS DISTINCT FROM later.identity_b
                OR earlier.proposed_name IS DISTINCT FROM later.proposed_name
        ) AS names
    FROM compared_suspects
    LEFT JOIN new_pairs AS n ON n.pair_id = later.pair_id
    LEFT JOIN compared_photos AS a ON a.photo_id = later.photo_a
    LEFT JOIN compared_photos AS b ON b.photo_id = later.photo_b
    WHERE later IS NOT NULL
)
SELECT
    rank, kind, probability, probability_then, blamed_photo, proposed_name, pair_id, photo_a, photo_b, identity_a, identity_b, cosine,
    list_filter(
        [
            if(evidence, 'evidence', NULL),
            if(names, 'names', NULL),
            if(probability - coalesce(probability_then, suspicious()) > risen(), 'probability', NULL)
        ],
        lambda reason: reason IS NOT NULL
    ) AS because,
    reason
FROM compared
WHERE len(because) > 0
