-- photos in the catalogues of both of two runs that have another name in the later
-- order: 175

SELECT photo_id, name_then, name_now
FROM compared_photos
WHERE was_listed AND is_listed AND name_then IS DISTINCT FROM name_now
