-- First and last moment the store knows of (ns), NULL when it is empty. What a clock ahead says was after $credible_ns
-- does not count, where there is anything else.
SELECT min(first_ns) AS first_ns, coalesce(max(last_ns), max(any_ns)) AS last_ns, sum(n) AS n FROM (
    SELECT min(start_ns) AS first_ns, max(end_ns) FILTER (end_ns <= $credible_ns) AS last_ns, max(end_ns) AS any_ns,
           count(*) AS n FROM spans
    UNION ALL SELECT min(time_ns), max(time_ns) FILTER (time_ns <= $credible_ns), max(time_ns), count(*) FROM logs
    UNION ALL SELECT min(time_ns), max(time_ns) FILTER (time_ns <= $credible_ns), max(time_ns), count(*) FROM points
)
