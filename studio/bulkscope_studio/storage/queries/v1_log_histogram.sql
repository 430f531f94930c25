-- Logs that v1_log_filter.sql wants by class of severity and bin: $bins from $from_ns to $to_ns.
SELECT least($bins - 1, floor((time_ns - $from_ns) / ($to_ns - $from_ns) * $bins))::INTEGER AS bin,
       CASE WHEN severity_number BETWEEN 1 AND 24 THEN (severity_number - 1) // 4 END AS class, count(*) AS records
FROM logs
WHERE {filter}
GROUP BY 1, 2
