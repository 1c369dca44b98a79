-- photos that the later of two runs saw in the catalogue and the earlier did not
-- order: 174
-- column identity: its name in the later run; null when unknown
-- column judged: whether the later run could compare it; else it failed

SELECT photo_id, name_now AS identity, is_judged AS judged
FROM compared_photos
WHERE is_listed AND NOT was_listed
