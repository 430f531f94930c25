-- The hosts on which a bulk's jobs were worked on, those with most attempts first, and how many workers each had.
SELECT host_name AS host, count(DISTINCT worker) AS workers, count(*) AS attempts
FROM rules.begun_attempts([$bulk], $bulk_first, $bulk_last)
GROUP BY host_name ORDER BY attempts DESC, host_name
