-- Logs from $from_ns to $before_ns (not itself), newest first, heartbeats of jobs only if $heartbeats; every other filter is off
-- when NULL. One row more than a page says that there is a next one.
SELECT time_ns, severity, service_name, bulk_id, trace_id, event_name, left(body, 2000) AS body FROM logs
WHERE time_ns >= $from_ns AND time_ns < $before_ns
  AND ($text IS NULL OR contains(lower(coalesce(body, '')), lower($text)) OR contains(coalesce(event_name, ''), $text))
  AND ($severity IS NULL OR severity_number >= $severity)
  AND ($heartbeats OR event_name IS DISTINCT FROM 'bulk.job.heartbeat')
  AND ($bulk_id IS NULL OR bulk_id = $bulk_id) AND ($service IS NULL OR service_name = $service)
ORDER BY time_ns DESC LIMIT 101 OFFSET $offset
