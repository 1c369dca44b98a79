-- The twenty most suspect pairs
SELECT rank, kind, round(score, 2) AS score, photo_a, identity_a, photo_b, identity_b, reason
FROM suspects
ORDER BY rank
LIMIT 20;

-- Photos blamed for a wrong name, with the name that would fit and the pairs that say so
SELECT blamed_photo, identity, right_name, kind, round(score, 2) AS score, supporting_pairs, words
FROM suspicions
JOIN photos ON photo_id = blamed_photo
ORDER BY suspicions.score DESC, blamed_photo, kind
LIMIT 20;

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

-- Photos whose best pair is the worst: nothing in the catalogue explains them
SELECT photo_id, any_value(identity) AS identity, round(max(evidence), 3) AS best_evidence, round(max(cosine), 3) AS best_cosine
FROM (SELECT unnest([photo_a, photo_b]) AS photo_id, evidence, cosine FROM evidence)
JOIN photos USING (photo_id)
GROUP BY photo_id
ORDER BY max(evidence), photo_id
LIMIT 20;

-- Unknown photos with the three names that their pictures speak for most
WITH sides AS (
    SELECT photo_a AS photo_id, identity_b AS name, evidence, cosine FROM evidence WHERE identity_a IS NULL
    UNION ALL
    SELECT photo_b, identity_a, evidence, cosine FROM evidence WHERE identity_b IS NULL
)
SELECT photo_id, name, round(max(evidence), 3) AS best_evidence, round(max(cosine), 3) AS best_cosine, count(*) AS pairs
FROM sides
WHERE name IS NOT NULL
GROUP BY photo_id, name
QUALIFY row_number() OVER (PARTITION BY photo_id ORDER BY max(evidence) DESC, name) <= 3
ORDER BY photo_id, max(evidence) DESC, name;

-- Alike to the model, implausible to the eye: high cosine, but no homography and little coverage
SELECT photo_a, identity_a, photo_b, identity_b, round(cosine, 3) AS cosine, round(match_coverage, 3) AS coverage, n_inliers
FROM pair_scores
WHERE cosine >= (SELECT quantile_cont(cosine, 0.75) FROM pair_scores)
ORDER BY coalesce(n_inliers, 0), match_coverage, pair_id
LIMIT 20;

-- Names with most suspects
SELECT name, count(DISTINCT pair_id) AS suspect_pairs, round(max(score), 2) AS highest_score, any_value(photos) AS photos
FROM (SELECT pair_id, score, unnest([identity_a, identity_b]) AS name FROM suspects)
JOIN identities ON identity = name
GROUP BY name
ORDER BY suspect_pairs DESC, name
LIMIT 20;

-- Names whose own photos agree least
SELECT identity, photos, encounters, same_name_pairs, round(mean_match_coverage, 3) AS coverage, round(mean_n_inliers, 1) AS inliers
FROM identities
WHERE same_name_pairs > 0
ORDER BY mean_match_coverage, identity
LIMIT 20;

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
