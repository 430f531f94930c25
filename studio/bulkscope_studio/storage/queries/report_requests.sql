-- The API requests that named the bulk and could send jobs, and the time each spent in handing jobs to the broker.
-- Clients that ask for progress would drown them: a read counts only when it sent something.
SELECT start_ns, end_ns, (end_ns - start_ns) / 1e9 AS seconds, outcome, error_type, http_status,
       enqueue_duration, bulk_size
FROM spans WHERE bulk_id = $bulk AND start_ns BETWEEN $bulk_first AND $bulk_last AND kind = 'SERVER'
  AND (coalesce(http_method, '') NOT IN ('GET', 'HEAD', 'OPTIONS') OR bulk_size > 0)
ORDER BY start_ns
