-- As page_extent, and clocks ahead count. Without a condition DuckDB answers from what it knows of the row groups: 3 ms
-- of CPU instead of 60 at 20 million rows.
SELECT min(first_ns) AS first_ns, max(last_ns) AS last_ns, sum(n) AS n FROM (
    SELECT min(start_ns) AS first_ns, max(end_ns) AS last_ns, count(*) AS n FROM spans
    UNION ALL SELECT min(time_ns), max(time_ns), count(*) FROM logs
    UNION ALL SELECT min(time_ns), max(time_ns), count(*) FROM points
)
