-- Requests by outcome, by the bin in which they ended.
SELECT (end_ns // $bin_ns) * $bin_ns // 1000000 AS t_ms, rules.request_outcome(outcome, http_status, status) AS series,
       count(*) AS n
FROM spans WHERE kind = 'SERVER' AND end_ns BETWEEN $from_ns AND $to_ns
GROUP BY 1, 2 ORDER BY t_ms
