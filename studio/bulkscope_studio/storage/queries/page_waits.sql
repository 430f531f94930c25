-- Queue waits (s; negative ones, clock skew, left out) by the bin in which the attempt ended. Both quantiles at
-- once, which takes a fifth of the time of a sketch for each. Of very many attempts a sample (server/pages/data.py).
SELECT t_ms, q[1] AS wait_p50, q[2] AS wait_p95 FROM (
    SELECT (end_ns // $bin_ns) * $bin_ns // 1000000 AS t_ms, quantile_cont(wait, [0.5, 0.95]) AS q
    FROM spans /*sample*/ WHERE kind = 'CONSUMER' AND wait >= 0 AND end_ns BETWEEN $from_ns AND $to_ns
    GROUP BY 1
) ORDER BY t_ms
