-- The API requests that named the bulk and could send jobs, and the time each spent in handing jobs to the broker.
SELECT start_ns, end_ns, (end_ns - start_ns) / 1e9 AS seconds,
       rules.request_outcome(outcome, http_status, status) AS outcome, error_type, http_status, enqueue_duration, bulk_size
FROM spans WHERE bulk_id = $bulk AND start_ns BETWEEN $bulk_first AND $bulk_last AND kind = 'SERVER'
  AND rules.request_sends(http_method, bulk_size)
ORDER BY start_ns
