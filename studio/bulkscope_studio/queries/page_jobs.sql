-- Attempts that ended, and those of them that failed, by the bin in which they did.
SELECT (end_ns // $bin_ns) * $bin_ns // 1000000 AS t_ms,
       count(*) FILTER (status IS DISTINCT FROM 'ERROR') AS done, count(*) FILTER (status = 'ERROR') AS failed
FROM spans WHERE kind = 'CONSUMER' AND end_ns BETWEEN $from_ns AND $to_ns
GROUP BY 1 ORDER BY t_ms
