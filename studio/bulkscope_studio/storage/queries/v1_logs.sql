-- Logs from $from_ns to $to_ns; {order} is put in by services/records.py. Every other filter is off when NULL. Heartbeats of
-- jobs are left out unless $heartbeats.
SELECT time_ns, severity, severity_number, service_name AS service, host_name AS host, worker, bulk_id AS bulk, job_id AS job, trace_id,
       span_id, event_name AS event, left(body, $body) AS body, length(body) > $body AS cut, attributes
FROM logs
WHERE time_ns >= $from_ns AND time_ns <= $to_ns
  AND ($text IS NULL OR contains(lower(coalesce(body, '')), lower($text)) OR contains(coalesce(event_name, ''), $text))
  AND ($severity IS NULL OR severity_number >= $severity)
  AND ($heartbeats OR event_name IS DISTINCT FROM 'bulk.job.heartbeat')
  AND ($bulk IS NULL OR bulk_id = $bulk) AND ($job IS NULL OR job_id = $job) AND ($service IS NULL OR service_name = $service)
  AND ($trace IS NULL OR trace_id = $trace) AND ($host IS NULL OR host_name = $host)
ORDER BY {order}, trace_id, span_id, body LIMIT $limit OFFSET $offset
