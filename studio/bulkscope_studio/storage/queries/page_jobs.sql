-- Attempts that ended, and those of them that failed, by the bin in which they did.
SELECT bin * $bin_ns // 1000000 AS t_ms, done, failed FROM (
    SELECT end_ns // $bin_ns AS bin,
           count(*) FILTER (status IS DISTINCT FROM 'ERROR') AS done, count(*) FILTER (status = 'ERROR') AS failed
    FROM spans WHERE kind = 'CONSUMER' AND end_ns BETWEEN $from_ns AND $to_ns
    GROUP BY bin
) ORDER BY t_ms
