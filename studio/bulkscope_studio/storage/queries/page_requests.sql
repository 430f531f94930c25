-- Requests by outcome, by the bin in which they ended. Those that went well and could send no jobs are apart ('read'):
-- clients that ask for progress and health checks would drown the load.
SELECT (end_ns // $bin_ns) * $bin_ns // 1000000 AS t_ms,
       CASE WHEN rules.request_outcome(outcome, http_status, status) = 'ok' AND NOT rules.request_sends(http_method, bulk_size)
            THEN 'read' ELSE rules.request_outcome(outcome, http_status, status) END AS series,
       count(*) AS n
FROM spans WHERE kind = 'SERVER' AND end_ns BETWEEN $from_ns AND $to_ns
GROUP BY 1, 2 ORDER BY t_ms
