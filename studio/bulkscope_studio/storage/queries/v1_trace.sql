-- Spans of one trace, oldest first; `total` says how many there are.
SELECT trace_id, span_id, parent_span_id, name, kind, service_name AS service, host_name AS host,
       rules.worker_name(worker, host_name, pid, service_instance_id, service_name) AS worker, start_ns AS started_ns,
       end_ns AS ended_ns, status, left(status_message, 2000) AS status_message, bulk_id AS bulk, job_id AS job, model,
       rules.credible_wait(wait) AS wait_s, error_type, failure_domain, count(*) OVER () AS total
FROM rules.recorded_spans WHERE trace_id = $trace ORDER BY start_ns, end_ns DESC, span_id LIMIT $limit OFFSET $offset
