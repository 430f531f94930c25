-- CPU of the workers of a bulk by host, as shares of the cores that each may use, mean over those that told in a bin; bins
-- as of v1_tokens.sql, and those beyond.
WITH own AS (
    SELECT DISTINCT worker, host_name FROM rules.begun_attempts([$bulk], $bulk_first, $bulk_last)
)
SELECT coalesce(p.host_name, '') AS host_name, floor((p.time_ns - $from_ns) / ($to_ns - $from_ns) * $bins)::INTEGER AS bin,
       round(avg(p.value), 9) AS cpu
FROM points p
WHERE p.name = 'process.cpu.utilization' AND p.time_ns BETWEEN $from_ns AND $until_ns
  AND (p.worker, coalesce(p.host_name, '')) IN (SELECT (worker, host_name) FROM own)
  AND coalesce(p.host_name, '') IN (SELECT unnest($hosts))
GROUP BY 1, 2
