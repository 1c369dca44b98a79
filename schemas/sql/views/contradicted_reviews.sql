-- answered questions against which photos speak that were stored after the answer
-- order: 142
-- narrow
-- column review_id: the verdict that they speak against
-- column right_name: of a photo's name the name that the new photos say, of two names the second; null of a name that was thought to be two
-- column answered_at: when the verdict was given
-- column new_photos: the photos that say otherwise
-- column supporting_pairs: their pairs, those that say so most first
-- column score: how sure the first of them is
-- column photos_a: of names and parts of a name all photos of one side; null otherwise
-- column photos_b: the other side
-- column words: what was answered when, and how many new photos say otherwise

WITH seen AS (
    SELECT pair_id, p.photo_a AS photo, p.photo_b AS other, p.identity_a AS name, p.identity_b AS other_name, j.probability
    FROM pairs AS p JOIN judgements AS j USING (pair_id)
    UNION ALL
    SELECT pair_id, p.photo_b, p.photo_a, p.identity_b, p.identity_a, j.probability
    FROM pairs AS p JOIN judgements AS j USING (pair_id)
),
standing AS (
    FROM reviews WHERE applies AND (kind, verdict) IN (
        ('name', 'right'), ('names', 'one_animal'), ('names', 'two_animals'), ('split', 'one_animal'), ('split', 'two_animals')
    )
),
best_own AS (
    SELECT photo, max(probability) AS probability FROM seen WHERE other_name = name GROUP BY photo
),
-- A photo whose name is right, and newer ones of another name that it is more like than any of its own.
of_photos AS (
    SELECT r.review_id, s.other AS new_photo, s.pair_id, s.probability AS sure, s.other_name AS right_name
    FROM standing AS r
    JOIN seen AS s ON s.photo = r.photo_a
    JOIN arrivals AS v ON v.photo_id = s.other AND v.first_stored_at > r."at"
    LEFT JOIN best_own AS o ON o.photo = r.photo_a
    WHERE r.kind = 'name' AND s.other_name <> s.name AND s.probability >= contradicting() AND s.probability > coalesce(o.probability, 0)
),
-- A newer photo of either name: it is like a photo of the other one, or surely like none of those it was compared with.
across AS (
    SELECT r.review_id, r.verdict, s.photo AS new_photo, s.pair_id, s.probability
    FROM standing AS r
    JOIN seen AS s ON (s.name = r.subject AND s.other_name = r.other) OR (s.name = r.other AND s.other_name = r.subject)
    JOIN arrivals AS v ON v.photo_id = s.photo AND v.first_stored_at > r."at"
    WHERE r.kind = 'names'
),
-- A newer photo of a name that is two animals: it is like photos of both. The pairs with the first side show it.
bridges AS (
    SELECT r.review_id, s.photo AS new_photo, s.pair_id, s.probability, list_contains(r.photos_a, s.other) AS of_a
    FROM standing AS r
    JOIN seen AS s ON s.name = r.subject AND s.other_name = r.subject
    JOIN arrivals AS v ON v.photo_id = s.photo AND v.first_stored_at > r."at"
    WHERE r.kind = 'split' AND r.verdict = 'two_animals' AND s.probability >= contradicting()
      AND (list_contains(r.photos_a, s.other) OR list_contains(r.photos_b, s.other))
    QUALIFY count(*) FILTER (of_a) OVER (PARTITION BY r.review_id, s.photo) > 0
        AND count(*) FILTER (NOT of_a) OVER (PARTITION BY r.review_id, s.photo) > 0
),
-- A newer photo of a name that is one animal: it is surely like none of the name that it was compared with.
strangers AS (
    SELECT r.review_id, s.photo AS new_photo, s.pair_id, s.probability
    FROM standing AS r
    JOIN seen AS s ON s.name = r.subject AND s.other_name = r.subject
    JOIN arrivals AS v ON v.photo_id = s.photo AND v.first_stored_at > r."at"
    WHERE r.kind = 'split' AND r.verdict = 'one_animal'
    QUALIFY max(s.probability) OVER (PARTITION BY r.review_id, s.photo) <= 1 - contradicting()
),
against AS (
    FROM of_photos
    UNION ALL
    SELECT review_id, new_photo, pair_id, probability, NULL FROM across
    WHERE verdict = 'two_animals' AND probability >= contradicting()
    UNION ALL
    SELECT review_id, new_photo, pair_id, 1 - probability, NULL FROM across
    WHERE verdict = 'one_animal'
    QUALIFY max(probability) OVER (PARTITION BY review_id, new_photo) <= 1 - contradicting()
    UNION ALL
    SELECT review_id, new_photo, pair_id, probability, NULL FROM bridges WHERE of_a
    UNION ALL
    SELECT review_id, new_photo, pair_id, 1 - probability, NULL FROM strangers
),
told AS (
    SELECT
        review_id,
        list_sort(list(DISTINCT new_photo)) AS new_photos,
        list(pair_id ORDER BY sure DESC, pair_id) AS supporting_pairs,
        max(sure) AS score,
        first(right_name ORDER BY sure DESC, pair_id) AS right_name
    FROM against
    GROUP BY review_id
),
members AS (
    SELECT identity, list(photo_id ORDER BY photo_id) AS photos FROM photos WHERE identity IS NOT NULL GROUP BY identity
)
SELECT
    r.review_id,
    r.kind,
    r.subject,
    r.other,
    r.verdict,
    coalesce(t.right_name, r.other) AS right_name,
    r."at" AS answered_at,
    t.new_photos,
    t.supporting_pairs,
    t.score,
    CASE
        WHEN r.kind = 'names' THEN a.photos
        WHEN r.kind = 'split' AND r.verdict = 'two_animals' THEN r.photos_a
        WHEN r.kind = 'split' THEN list_filter(a.photos, lambda x: NOT list_contains(t.new_photos, x))
    END AS photos_a,
    CASE
        WHEN r.kind = 'names' THEN b.photos
        WHEN r.kind = 'split' AND r.verdict = 'two_animals' THEN list_sort(list_distinct(list_concat(r.photos_b, t.new_photos)))
        WHEN r.kind = 'split' THEN t.new_photos
    END AS photos_b,
    format(
        '{} was answered on {} ({}{}); since then {} otherwise ({}{}).',
        CASE r.kind
            WHEN 'name' THEN 'The name of ' || r.subject
            WHEN 'names' THEN 'Whether ' || r.subject || ' and ' || r.other || ' are one animal'
            ELSE 'Whether ' || r.subject || ' is one animal'
        END,
        CAST(CAST(make_timestamp(epoch_us(r."at")) AS DATE) AS VARCHAR),
        replace(r.verdict, '_', ' '),
        coalesce(' by ' || r.reviewer, ''),
        if(len(t.new_photos) = 1, '1 new photo says', len(t.new_photos) || ' new photos say'),
        array_to_string(t.new_photos[1:5], ', '),
        if(len(t.new_photos) > 5, ', …', '')
    ) AS words
FROM told AS t
JOIN standing AS r USING (review_id)
LEFT JOIN members AS a ON a.identity = r.subject AND r.kind <> 'name'
LEFT JOIN members AS b ON b.identity = r.other
-- Where one verdict stands for two questions, that of the names as they are now counts.
QUALIFY row_number() OVER (PARTITION BY t.review_id ORDER BY r.carried DESC) = 1
