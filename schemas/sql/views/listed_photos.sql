-- photos whose names are listed as suspect, one row each
-- order: 143
-- narrow
-- column photo_id: the photo

-- Where the pictures say little, probabilities are all small: then those that stand out are listed, and say so by their numbers.
SELECT photo_id
FROM judged_photos
WHERE NOT undefended AND told_by = ''
QUALIFY probability >= listed()
    OR (rival_voice > own_voice AND percent_rank() OVER (ORDER BY log_odds DESC, photo_id) <= 0.1)
