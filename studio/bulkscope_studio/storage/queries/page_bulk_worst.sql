-- Slowest 20 attempts by total of wait and work, or the 100 first failed ones ($failed).
SELECT trace_id, span_id, job_id, coalesce(attempt, 1) AS attempt, wait, (end_ns - start_ns) / 1e9 AS work,
       worker, failure_domain, error_type
FROM rules.ended_attempts
WHERE bulk_id = $bulk_id AND start_ns BETWEEN $bulk_first AND $bulk_last AND (NOT $failed OR state = 'failed')
ORDER BY coalesce(greatest(wait, 0), 0) + (end_ns - start_ns) / 1e9 DESC LIMIT CASE WHEN $failed THEN 100 ELSE 20 END
