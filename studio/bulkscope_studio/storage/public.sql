-- What a user's SQL reads: views of one connection, with units in the names of columns as the API has them
-- (docs/sql.md, which `tests/studio/test_sql.py` holds against this). By the rules of views.sql; numbers that nothing can
-- have measured are absent. `public.py` puts in what stands in braces.

CREATE TEMP MACRO named_bulk(bulk) AS CASE WHEN bulk = 'latest' THEN coalesce({latest}, bulk) ELSE bulk END;

-- Without WHERE the comma would go on with FROM.
CREATE TEMP MACRO jobs
() AS TABLE SELECT * FROM rules.jobs([], 0, 4611686018427387904, every_job := true) WHERE true,
(of_bulk) AS TABLE SELECT * FROM rules.jobs([named_bulk(of_bulk)], 0, 4611686018427387904);

CREATE TEMP MACRO tries(of_several, every) AS TABLE
SELECT bulk_id AS bulk, rules.job_key(job_id, span_id) AS job, coalesce(attempt, CASE WHEN start_ns IS NOT NULL THEN 1 END)
           AS attempt,
       decides, CASE WHEN called_off IS NOT NULL THEN 'cancelled' WHEN start_ns IS NULL THEN 'waiting'
                     WHEN end_ns IS NULL THEN 'running' ELSE state END AS state,
       queue, worker, host_name AS host, enqueue_ns AS enqueued_ns, start_ns AS started_ns, end_ns AS ended_ns, wait AS wait_s,
       delay AS scheduled_delay_s, (end_ns - start_ns) / 1e9 AS work_s, import_time AS import_s, failure_domain, error_type,
       trace_id, span_id
FROM rules.attempts(of_several, 0, 4611686018427387904, every_job := every);

CREATE TEMP MACRO attempts
() AS TABLE SELECT * FROM tries([], true) WHERE true,
(of_bulk) AS TABLE SELECT * FROM tries([named_bulk(of_bulk)], false);

CREATE TEMP VIEW inferences AS
SELECT bulk_id AS bulk, job_id AS job, model, worker, host_name AS host, start_ns AS started_ns, end_ns AS ended_ns,
       seconds AS inference_s, ok, prompts, input_tokens, cached_tokens, rules.computed_tokens(input_tokens, cached_tokens) AS computed_tokens,
       output_tokens, ttft AS ttft_s, prefill AS prefill_s, decode AS decode_s, cpu_time AS cpu_s, cpu_wait AS cpu_wait_s,
       cpu_throttled AS cpu_throttled_s, cpu_utilization AS cpu_cores, cpu_exact, memory_start AS memory_start_bytes, memory_peak AS memory_peak_bytes,
       memory_growth AS memory_growth_bytes, memory_limit AS memory_limit_bytes, memory_exact, trace_id, span_id
FROM rules.inferences;

CREATE TEMP VIEW spans AS
SELECT trace_id, span_id, parent_span_id, name, kind, service_name AS service, host_name AS host,
       rules.worker_name(worker, host_name, pid, service_instance_id, service_name) AS worker, start_ns AS started_ns,
       end_ns AS ended_ns, (end_ns - start_ns) / 1e9 AS duration_s, status, status_message, bulk_id AS bulk, job_id AS job,
       parent_bulk_id AS parent_bulk, rules.credible_attempt(attempt) AS attempt, queue, task, outcome, failure_domain, error_type,
       http_method, http_route, rules.credible_http_status(http_status) AS http_status, model, provider, scope, resource_id,
       attributes, events, links, dropped
FROM rules.recorded_spans;

CREATE TEMP VIEW logs AS
SELECT time_ns, severity, severity_number, service_name AS service, host_name AS host,
       rules.worker_name(worker, host_name, pid, service_instance_id, service_name) AS worker, bulk_id AS bulk,
       job_id AS job, trace_id, span_id, event_name AS event, body, attributes, scope, resource_id, dropped
FROM rules.recorded_logs;

CREATE TEMP VIEW points AS
SELECT time_ns, start_ns, name, unit, type, temporality, monotonic, service_name AS service, host_name AS host,
       rules.worker_name(worker, host_name, pid, service_instance_id, service_name) AS worker, attributes,
       rules.credible_point(name, value) AS value, count, sum, min, max, bounds, buckets, scope, resource_id
FROM rules.recorded_points;

CREATE TEMP VIEW resources AS SELECT resource_id, attributes FROM {file}.resources;

CREATE TEMP VIEW drops AS SELECT time_ns, signal, transport, outcome, reason, records FROM {file}.ingest;

CREATE TEMP VIEW bulks AS
WITH {bulks} SELECT bulk_id AS id, start_ns, end_ns, (end_ns - start_ns) / 1e9 AS took_s, sent AS sent_jobs, done AS done_jobs,
       failed AS failed_jobs, cancelled AS cancelled_jobs, not_sent AS not_sent_jobs, duplicate AS duplicate_jobs,
       domains AS failure_domains, models, tokens AS output_tokens, wait AS wait_mean_s
FROM listed;
