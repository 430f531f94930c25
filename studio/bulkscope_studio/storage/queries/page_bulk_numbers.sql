-- The numbers of one bulk but those of page_bulk_progress, one row; rows = 0 when nothing is known of it. Requests that only ask for
-- progress are left out of the API's numbers and of the time axis.
WITH s AS (
    SELECT * FROM spans WHERE bulk_id = $bulk_id AND start_ns BETWEEN $bulk_first AND $bulk_last
        AND NOT (kind = 'SERVER' AND coalesce(http_method, '') IN ('GET', 'HEAD', 'OPTIONS') AND coalesce(bulk_size, 0) = 0)
)
SELECT count(*) AS rows, min(start_ns) AS from_ns, max(end_ns) AS to_ns, arg_min(trace_id, start_ns) AS trace_id,
       count(*) FILTER (kind = 'SERVER') AS hits,
       count(*) FILTER (kind = 'SERVER' AND outcome = 'client_error') AS client_error,
       count(*) FILTER (kind = 'SERVER' AND outcome = 'overload') AS overload,
       count(*) FILTER (kind = 'SERVER' AND outcome = 'internal_error') AS internal,
       sum(enqueue_duration) AS enqueue,
       avg(wait) FILTER (kind = 'CONSUMER' AND wait >= 0) AS wait_mean,
       quantile_cont(wait, 0.5) FILTER (kind = 'CONSUMER' AND wait >= 0) AS wait_p50,
       quantile_cont(wait, 0.95) FILTER (kind = 'CONSUMER' AND wait >= 0) AS wait_p95,
       quantile_cont((end_ns - start_ns) / 1e9, 0.5) FILTER (model IS NOT NULL) AS time_p50,
       quantile_cont((end_ns - start_ns) / 1e9, 0.95) FILTER (model IS NOT NULL) AS time_p95,
       sum(cpu_time) AS cpu, avg(cpu_utilization) AS cpu_utilization,
       count(*) FILTER (cpu_exact = false) AS cpu_estimated, max(memory_peak) AS peak,
       count(*) FILTER (memory_exact = false) AS memory_estimated,
       sum(output_tokens) AS output_tokens, sum(input_tokens) AS input_tokens, sum(cached_tokens) AS cached_tokens,
       sum(output_tokens) / nullif(sum((end_ns - start_ns) / 1e9) FILTER (model IS NOT NULL AND output_tokens IS NOT NULL), 0) AS rate,
       avg(wait_ratio) AS wait_ratio
FROM s
