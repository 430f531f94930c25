-- Requests by outcome, by the bin in which they ended.
SELECT (end_ns // $bin_ns) * $bin_ns // 1000000 AS t_ms,
       coalesce(outcome, CASE WHEN http_status IN (429, 503) THEN 'overload'
                              WHEN http_status >= 500 OR status = 'ERROR' THEN 'internal_error'
                              WHEN http_status >= 400 THEN 'client_error' ELSE 'ok' END) AS series,
       count(*) AS n
FROM spans WHERE kind = 'SERVER' AND end_ns BETWEEN $from_ns AND $to_ns
GROUP BY 1, 2 ORDER BY t_ms
