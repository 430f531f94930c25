-- When the first and the last of the logs was made that v1_log_filter.sql wants.
SELECT min(time_ns) AS first_ns, max(time_ns) AS last_ns FROM logs
WHERE {filter}
