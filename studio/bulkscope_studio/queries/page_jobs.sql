-- Attempts ended per second and failed (1/s), and their queue wait (s; negative waits, clock skew, left out).
SELECT (end_ns // $bin_ns) * $bin_ns // 1000000 AS t_ms,
       count(*) FILTER (status IS DISTINCT FROM 'ERROR') / ($bin_ns / 1e9) AS done,
       count(*) FILTER (status = 'ERROR') / ($bin_ns / 1e9) AS failed,
       approx_quantile(wait, 0.5) FILTER (wait >= 0) AS wait_p50,
       approx_quantile(wait, 0.95) FILTER (wait >= 0) AS wait_p95
FROM spans WHERE kind = 'CONSUMER' AND end_ns BETWEEN $from_ns AND $to_ns
GROUP BY 1 ORDER BY t_ms
