-- First and last moment the store knows of (ns), NULL when it is empty.
SELECT min(first_ns) AS first_ns, max(last_ns) AS last_ns, sum(n) AS n FROM (
    SELECT min(start_ns) AS first_ns, max(end_ns) AS last_ns, count(*) AS n FROM spans
    UNION ALL SELECT min(time_ns), max(time_ns), count(*) FROM logs
    UNION ALL SELECT min(time_ns), max(time_ns), count(*) FROM points
)
