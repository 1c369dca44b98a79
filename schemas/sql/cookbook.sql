-- The twenty most suspect names and photos, and where to stop: the share of real errors to be expected down to each
SELECT
    rank, kind, round(probability, 3) AS probability, blamed_photo, proposed_name, round(expected, 2) AS expected_share_so_far,
    photo_a, identity_a, photo_b, identity_b, reason
FROM suspects
JOIN expected_precision USING (rank)
ORDER BY rank
LIMIT 20;

-- What changed since the run before the newest, or with `pairx sql --since RUN` since any other
SELECT 'new photo' AS change, photo_id AS what, NULL AS before, identity AS now FROM new_photos
UNION ALL SELECT 'changed name', photo_id, name_then, name_now FROM changed_names
UNION ALL SELECT 'new suspect: ' || kind, coalesce(blamed_photo, concat_ws(', ', identity_a, identity_b)),
    CAST(round(probability_then, 3) AS VARCHAR), CAST(round(probability, 3) AS VARCHAR) FROM new_suspects
UNION ALL SELECT 'gone suspect: ' || kind, coalesce(blamed_photo, concat_ws(', ', identity_a, identity_b)),
    CAST(round(probability, 3) AS VARCHAR), because FROM gone_suspects
ORDER BY change, what;

-- Which names last night's photos tie together: a new photo is likely one animal with photos of both, or bears one of the names itself
WITH seen AS (
    SELECT unnest([photo_a, photo_b]) AS photo_id, unnest([identity_b, identity_a]) AS name, probability FROM new_pairs
),
ties AS (
    SELECT photo_id, name, max(probability) AS probability FROM seen WHERE probability >= 0.5 AND name IS NOT NULL GROUP BY ALL
    UNION ALL SELECT photo_id, identity, 1.0 FROM new_photos WHERE identity IS NOT NULL
),
tied AS (SELECT photo_id, name, max(probability) AS probability FROM ties SEMI JOIN new_photos USING (photo_id) GROUP BY ALL)
SELECT a.name AS name_a, b.name AS name_b, count(*) AS photos, round(max(least(a.probability, b.probability)), 3) AS probability,
    list(photo_id ORDER BY photo_id)[:5] AS by_photos
FROM tied AS a JOIN tied AS b USING (photo_id)
WHERE a.name < b.name
GROUP BY ALL
ORDER BY probability DESC, name_a, name_b
LIMIT 20;

-- Names that may be one animal, and names that may be two, with the photos on either side
SELECT kind, name_a, name_b, round(probability, 3) AS probability, pairs, len(photos_a) AS photos_a, len(photos_b) AS photos_b,
    supporting_photos_a[1] AS photo_a, supporting_photos_b[1] AS photo_b
FROM judged_names
ORDER BY log_odds DESC, name_a, name_b
LIMIT 20;

-- Photos that no other photo of their name can speak for: undefended, not guilty
SELECT photo_id, identity, round(rival_voice, 2) AS loudest_other_voice, proposed_name
FROM judged_photos
WHERE undefended
ORDER BY rival_voice DESC NULLS LAST, photo_id
LIMIT 20;

-- Photos that nobody of their name resembles: with every photo of it that was compared, two animals are likelier than one
WITH seen AS (
    SELECT unnest([photo_a, photo_b]) AS photo_id, unnest([photo_b, photo_a]) AS other, probability
    FROM judgements JOIN pairs USING (pair_id, photo_a, photo_b)
    WHERE same_identity
)
SELECT photo_id, identity, count(*) AS compared_with, round(max(probability), 3) AS likeliest, max_by(other, probability) AS nearest_of_its_name
FROM seen JOIN photos USING (photo_id)
GROUP BY photo_id, identity
HAVING max(probability) < 0.5
ORDER BY max(probability), photo_id
LIMIT 20;

-- What each term added to the log-odds of the first suspect's pair
SELECT photo_a, photo_b, round(log_odds, 2) AS log_odds, unnest(terms) AS term, round(unnest(added), 3) AS added
FROM judgements
WHERE pair_id = (SELECT pair_id FROM suspects ORDER BY rank LIMIT 1);

-- Which signals have a say: the share of each that animals grant it from which it was not learned, and what it moves
SELECT term, round(value, 2) AS trust, round(avg(abs(added)), 3) AS moves_log_odds_by
FROM judges
JOIN (SELECT unnest(terms) AS term, unnest(added) AS added FROM judgements) USING (term)
WHERE part = 'trust'
GROUP BY term, value
ORDER BY moves_log_odds_by DESC, term;

-- How far probabilities can be believed: what was stated, and the share that has one name
SELECT bin, pairs, round(stated, 3) AS stated, round(found, 3) AS found
FROM reliability
ORDER BY bin;

-- How much is wrong in all, how many animals there are, and how good the probabilities are beside those of the cosine alone
SELECT photos, names, wrong_names, wrong_names_low, wrong_names_high, sensitivity, animals, animals_low, animals_high,
    calibration_error, brier, brier_cosine
FROM judged_catalogues;

-- How many wrong names are to be expected in all, and how many are left when the list of photos is cleared down to each
SELECT rank, blamed_photo, round(probability, 3) AS probability, round(errors, 1) AS expected_in_all,
    round(sum(probability) OVER (ORDER BY rank), 1) AS found_so_far,
    round(greatest(0, errors - sum(probability) OVER (ORDER BY rank)), 1) AS expected_left
FROM suspects JOIN expected_precision USING (rank)
WHERE kind = 'wrong_name'
ORDER BY rank
LIMIT 50;

-- Plausibility of pairs of one name, of two names, and of pairs with an unknown animal
SELECT
    CASE WHEN same_identity THEN 'one name' WHEN NOT same_identity THEN 'two names' ELSE 'unknown' END AS names,
    count(*) AS pairs,
    round(avg(cosine), 3) AS mean_cosine,
    [round(q, 3) for q in quantile_cont(match_coverage, [0.1, 0.5, 0.9])] AS coverage_10_50_90,
    [round(q, 3) for q in quantile_cont(inverted_residual_mean, [0.1, 0.5, 0.9])] AS inverse_residual_10_50_90,
    round(avg(CASE WHEN n_inliers IS NULL THEN 1 ELSE 0 END), 3) AS share_without_homography
FROM pair_scores
GROUP BY names
ORDER BY names;

-- Unknown photos with their three likeliest answers; a new animal is one of them
SELECT photo_id, rank, coalesce(name, '(a new animal)') AS answer, round(probability, 3) AS probability
FROM candidates
WHERE rank <= 3
ORDER BY photo_id, rank;

-- Unknown photos that are likely known animals, and those that are likely new ones, the surest first
SELECT if(name IS NULL, 'a new animal', 'a known animal') AS likely, photo_id, name, round(probability, 3) AS probability,
    photo_id IN (SELECT photo_id FROM new_photos) AS new_photo
FROM candidates
WHERE rank = 1
ORDER BY likely, probability DESC, photo_id;

-- Alike to the model, implausible to the eye: high cosine, but no homography and little coverage
SELECT photo_a, identity_a, photo_b, identity_b, round(cosine, 3) AS cosine, round(match_coverage, 3) AS coverage, n_inliers
FROM pair_scores
WHERE cosine >= (SELECT quantile_cont(cosine, 0.75) FROM pair_scores)
ORDER BY coalesce(n_inliers, 0), match_coverage, pair_id
LIMIT 20;

-- Suspects by site: photos there, and suspects that show one; any other column of a catalogue serves as well, such as extra['photographer']
SELECT extra['site'] AS site, count(DISTINCT photo_id) AS photos, count(DISTINCT rank) AS suspects,
    count(DISTINCT photo_id) FILTER (rank IS NOT NULL) AS photos_in_suspects
FROM photos
LEFT JOIN (SELECT rank, unnest([photo_a, photo_b]) AS photo_id FROM suspects) USING (photo_id)
GROUP BY site
ORDER BY suspects DESC, site;

-- Failures by stage and code, with an example of each
SELECT stage, code, count(*) AS items, min(item) AS example, min_by(message, item) AS message
FROM failures
GROUP BY stage, code
ORDER BY items DESC, stage, code;

-- The ten most relevant matches of the first suspect, one row each
SELECT
    rank, photo_a, photo_b,
    unnest(x_a[:10]) AS x_a, unnest(y_a[:10]) AS y_a, unnest(x_b[:10]) AS x_b, unnest(y_b[:10]) AS y_b,
    unnest(relevance[:10]) AS relevance, unnest(residual[:10]) AS residual
FROM (SELECT rank, pair_id FROM suspects ORDER BY rank LIMIT 1)
JOIN matches USING (pair_id)
JOIN current_run USING (layer);

-- The same picture twice
SELECT photo_a, identity_a, photo_b, identity_b, same_file, hash_distance
FROM duplicates
ORDER BY hash_distance, photo_a, photo_b;

-- Runs, newest first, with seconds per stage
SELECT run_id, status, started_at, stage, round(CAST(timings ->> stage AS DOUBLE), 1) AS stage_seconds, round(seconds, 1) AS run_seconds
FROM (SELECT *, unnest(json_keys(timings)) AS stage FROM runs)
ORDER BY run_id DESC, stage_seconds DESC;

-- How well the catalogue is covered: photos in, embedded, in a scored pair, failed
SELECT
    (SELECT count(*) FROM photos) AS photos,
    (SELECT count(*) FROM embeddings) AS embedded,
    (SELECT count(DISTINCT photo_id) FROM (SELECT unnest([photo_a, photo_b]) AS photo_id FROM pair_scores)) AS in_a_scored_pair,
    (SELECT count(DISTINCT item) FROM failures WHERE stage IN ('ingest', 'embed')) AS failed;
