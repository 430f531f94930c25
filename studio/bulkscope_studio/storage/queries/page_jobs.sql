-- Attempts that ended, by what became of them and by the bin in which they did.
SELECT bin * $bin_ns // 1000000 AS t_ms, done, failed, retried FROM (
    SELECT end_ns // $bin_ns AS bin, count(*) FILTER (state = 'done') AS done,
           count(*) FILTER (state = 'failed') AS failed, count(*) FILTER (state = 'retried') AS retried
    FROM rules.ended_attempts WHERE end_ns BETWEEN $from_ns AND $to_ns
    GROUP BY bin
) ORDER BY t_ms
