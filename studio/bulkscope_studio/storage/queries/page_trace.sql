-- Spans of one trace, oldest first, at most $limit; `total` says how many there are.
SELECT trace_id, span_id, parent_span_id, name, kind, service_name, start_ns, end_ns, status, bulk_id,
       count(*) OVER () AS total
FROM spans WHERE trace_id = $trace_id ORDER BY start_ns, end_ns DESC LIMIT $limit
