-- The twenty most suspect names and photos, and where to stop: the share of real errors to be expected down to each
SELECT
    rank, kind, round(probability, 3) AS probability, blamed_photo, proposed_name, round(expected, 2) AS expected_share_so_far,
    photo_a, identity_a, photo_b, identity_b, reason
FROM suspects
JOIN expected_precision USING (rank)
ORDER BY rank
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
