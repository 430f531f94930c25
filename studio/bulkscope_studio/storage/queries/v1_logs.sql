-- Logs that v1_log_filter.sql wants, which services/records.py puts in, as it does {order}.
SELECT time_ns, severity, severity_number, service_name AS service, host_name AS host, worker, bulk_id AS bulk, job_id AS job, trace_id,
       span_id, event_name AS event, left(body, $body) AS body, length(body) > $body AS cut, attributes
FROM logs
WHERE {filter}
ORDER BY {order}, trace_id, span_id, body LIMIT $limit OFFSET $offset
