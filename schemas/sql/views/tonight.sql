-- one row: how much the later of two runs changed
-- order: 180
-- column new_photos: photos that are new in the catalogue
-- column new_pairs: pairs that were judged for the first time
-- column new_suspects: suspects that are new, or rest on something new
-- column gone_suspects: suspects that are none any more
-- column changed_names: photos that have another name

SELECT
    earlier,
    later,
    (SELECT count(*) FROM new_photos) AS new_photos,
    (SELECT count(*) FROM new_pairs) AS new_pairs,
    (SELECT count(*) FROM new_suspects) AS new_suspects,
    (SELECT count(*) FROM gone_suspects) AS gone_suspects,
    (SELECT count(*) FROM changed_names) AS changed_names
FROM compared_runs
