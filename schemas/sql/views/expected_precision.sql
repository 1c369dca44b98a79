-- down the list of suspects: what share of the first rows are errors, as far as the probabilities can be believed
-- order: 155
-- narrow
-- column expected: mean score of the rows up to this one: the share of them that are errors, expected
-- column errors: expected number of photos under a wrong name in the whole catalogue
-- column low: lower end of the interval that holds that number nine times in ten
-- column high: upper end of that interval

SELECT
    s.rank,
    avg(s.score) OVER (ORDER BY s.rank) AS expected,
    c.wrong_names AS errors,
    c.wrong_names_low AS low,
    c.wrong_names_high AS high
FROM suspects AS s
LEFT JOIN judged_catalogues AS c ON true
