-- The API requests that named the bulk, and the time each spent in handing jobs to the broker.
SELECT start_ns, end_ns, (end_ns - start_ns) / 1e9 AS seconds, outcome, error_type, http_status,
       enqueue_duration, bulk_size
FROM spans WHERE bulk_id = $bulk AND kind = 'SERVER'
ORDER BY start_ns
