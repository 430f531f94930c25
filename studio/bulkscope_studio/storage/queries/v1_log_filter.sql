-- Which log records, from $from_ns to $to_ns: a condition of v1_logs.sql and v1_log_histogram.sql. A filter is off when NULL.
-- Heartbeats of jobs are left out unless $heartbeats.
time_ns >= $from_ns AND time_ns <= $to_ns
  AND ($text IS NULL OR contains(lower(coalesce(body, '')), lower($text)) OR contains(coalesce(event_name, ''), $text))
  AND ($severity IS NULL OR severity_number >= $severity)
  AND ($heartbeats OR event_name IS DISTINCT FROM 'bulk.job.heartbeat')
  AND ($bulk IS NULL OR bulk_id = $bulk) AND ($job IS NULL OR job_id = $job) AND ($service IS NULL OR service_name = $service)
  AND ($trace IS NULL OR trace_id = $trace) AND ($host IS NULL OR host_name = $host)
