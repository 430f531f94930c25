-- The API requests that named the bulk and could send jobs, and the time each spent in handing jobs to the broker.
-- Clients that ask for progress would drown them: a read counts only when it sent something.
SELECT start_ns, end_ns, seconds, outcome, error_type, http_status, enqueue_duration, bulk_size
FROM requests WHERE bulk_id = $bulk AND start_ns BETWEEN $bulk_first AND $bulk_last AND sends
ORDER BY start_ns
