-- What an id, or the first part of one, names: jobs, traces, spans and workers. Bulks and runs are looked up elsewhere.
WITH found AS (
    SELECT bulk_id, job_id, trace_id, span_id, kind, start_ns,
           rules.worker_name(worker, host_name, pid, service_instance_id, service_name) AS worker
    FROM rules.recorded_spans
    WHERE starts_with(job_id, $text) OR trace_id = $text OR span_id = $text
       OR starts_with(rules.worker_name(worker, host_name, pid, service_instance_id, service_name), $text)
), named AS (
    SELECT 'job' AS kind, job_id AS id, bulk_id AS bulk, arg_min(trace_id, start_ns) AS trace_id, min(start_ns) AS first_ns
    FROM found WHERE starts_with(job_id, $text) GROUP BY job_id, bulk_id
    UNION ALL
    SELECT 'trace', trace_id, min(bulk_id), trace_id, min(start_ns) FROM found WHERE trace_id = $text GROUP BY trace_id
    UNION ALL
    SELECT 'span', span_id, min(bulk_id), trace_id, min(start_ns) FROM found WHERE span_id = $text GROUP BY span_id, trace_id
    UNION ALL
    SELECT 'worker', worker, NULL, NULL, min(start_ns) FROM found
    WHERE kind = 'CONSUMER' AND starts_with(worker, $text) GROUP BY worker
)
SELECT * FROM named ORDER BY id = $text DESC, first_ns DESC, id LIMIT $limit
