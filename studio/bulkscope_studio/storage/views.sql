-- The one definition of every number that is derived from what was recorded. `views.py` applies it to each store, also to
-- one in memory and to a file that is open for reading alone. Tables are those of schema.sql; `rules.credible_COLUMN(x)`
-- is absent for a number that nothing can have measured (credible.py). Times are ns since the Unix epoch, durations s.

-- attempts and jobs

-- The name of a worker (workers.py). Stores of before have none: host and process id, which the containers of a host may
-- share.
CREATE OR REPLACE MACRO rules.worker_name(worker, host_name, pid, service_instance_id, service_name) AS
    coalesce(worker, host_name || ':' || pid, service_instance_id, service_name, 'worker');

-- An attempt that has ended is one of three: tried again later ('retried'), 'done', or 'failed'. One that its library
-- retries is not failed, whatever its status.
CREATE OR REPLACE MACRO rules.attempt_state(status, failure_domain, outcome) AS
    CASE WHEN outcome = 'retry' THEN 'retried'
         WHEN status IS DISTINCT FROM 'ERROR' AND failure_domain IS NULL AND coalesce(outcome, 'ok') = 'ok' THEN 'done'
         ELSE 'failed' END;

-- inferences and requests

-- A span is an inference where it names a model and is of the process that asked the engine; a model that a service names
-- on its own request or job makes none of that.
CREATE OR REPLACE MACRO rules.is_inference(kind, model) AS model IS NOT NULL AND kind IN ('INTERNAL', 'CLIENT');

-- Memory of an inference as its worker's. An engine in another process (`apart`) is one for all workers that ask it:
-- one more of them takes none of it.
CREATE OR REPLACE MACRO rules.memory_of_worker(apart, bytes) AS CASE WHEN NOT apart THEN bytes END;

-- Tokens that prefill had to compute: those of the prompt that did not come from the cache.
CREATE OR REPLACE MACRO rules.computed_tokens(input_tokens, cached_tokens) AS
    greatest(input_tokens - coalesce(cached_tokens, 0), 0);

CREATE OR REPLACE VIEW rules.inferences AS
SELECT trace_id, span_id, bulk_id, job_id, start_ns, end_ns, (end_ns - start_ns) / 1e9 AS seconds,
       status IS DISTINCT FROM 'ERROR' AS ok, resource_id, coalesce(host_name, '') AS host_name,
       rules.worker_name(worker, host_name, pid, service_instance_id, service_name) AS worker,
       service_instance_id AS instance, model,
       rules.credible_input_tokens(input_tokens) AS input_tokens,
       rules.credible_output_tokens(output_tokens) AS output_tokens,
       rules.credible_cached_tokens(cached_tokens) AS cached_tokens,
       rules.credible_ttft(ttft) AS ttft, rules.credible_prefill(prefill) AS prefill,
       rules.credible_decode(decode) AS decode,
       rules.credible_cpu_time(cpu_time) AS cpu_time, rules.credible_cpu_utilization(cpu_utilization) AS cpu_utilization,
       cpu_exact, rules.credible_cpu_pressure(cpu_pressure) AS cpu_pressure,
       rules.credible_cpu_throttled(cpu_throttled) AS cpu_throttled, rules.credible_cpu_wait(cpu_wait) AS cpu_wait,
       rules.credible_memory_start(memory_start) AS memory_start, rules.credible_memory_peak(memory_peak) AS memory_peak,
       rules.credible_memory_growth(memory_growth) AS memory_growth,
       rules.credible_memory_file(memory_file) AS memory_file, rules.credible_memory_anon(memory_anon) AS memory_anon,
       rules.credible_memory_limit(memory_limit) AS memory_limit, memory_exact, kind = 'CLIENT' AS apart
FROM spans WHERE rules.is_inference(kind, model);

-- How a request ended. Another instrumentation gives no outcome, and its HTTP status decides; kibana/source/_blocks.yaml
-- and prometheus/rules say the same.
CREATE OR REPLACE MACRO rules.request_outcome(outcome, http_status, status) AS
    coalesce(outcome, CASE WHEN http_status IN (429, 503) THEN 'overload'
                           WHEN http_status BETWEEN 400 AND 499 THEN 'client_error'
                           WHEN http_status >= 500 OR status = 'ERROR' THEN 'internal_error'
                           WHEN http_status IS NOT NULL THEN 'ok' ELSE 'unknown' END);

-- Whether a request of a bulk counts as one that could send jobs: clients that ask for progress would drown them, so a
-- read counts only when it sent something.
CREATE OR REPLACE MACRO rules.request_sends(http_method, bulk_size) AS
    coalesce(http_method, '') NOT IN ('GET', 'HEAD', 'OPTIONS') OR coalesce(bulk_size, 0) > 0;

-- Wait over total latency of an attempt, by what its worker measured: wait, wanted delay and work. Absent where the wait
-- is, or is negative.
CREATE OR REPLACE MACRO rules.wait_ratio(wait, delay, start_ns, end_ns) AS
    CASE WHEN wait >= 0 THEN wait / nullif(wait + coalesce(delay, 0) + (end_ns - start_ns) / 1e9, 0) END;
