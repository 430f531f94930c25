-- Logs of one span, oldest first, at most 200.
SELECT time_ns, severity, event_name, body FROM logs
WHERE trace_id = $trace_id AND span_id = $span_id ORDER BY time_ns LIMIT 200
