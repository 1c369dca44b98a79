-- pairs under two names that are one picture, with the photo whose name the pictures speak against
-- order: 144
-- narrow
-- column blamed: photo whose own name speaks against it; null where the names of both are as good
-- column right_name: name of the other photo; null without a blamed one
-- column certain: whether the two agree so closely that they are no two frames of one burst

-- What was compared pixel by pixel. The agreement of still frames of one animal reaches that of a copy saved anew.
SELECT
    c.*,
    CASE WHEN a.log_odds > b.log_odds THEN photo_a WHEN b.log_odds > a.log_odds THEN photo_b END AS blamed,
    CASE blamed WHEN photo_a THEN c.identity_b WHEN photo_b THEN c.identity_a END AS right_name,
    agreement >= certain_copy() AS certain
FROM copies AS c
LEFT JOIN judged_photos AS a ON a.photo_id = c.photo_a AND NOT a.undefended
LEFT JOIN judged_photos AS b ON b.photo_id = c.photo_b AND NOT b.undefended
WHERE same_picture AND NOT same_identity
