-- One row per inference of a bulk. seconds: duration of the span.
SELECT job_id, span_id, model, coalesce(host_name || ':' || pid, service_instance_id, service_name, 'worker') AS worker,
       (end_ns - start_ns) / 1e9 AS seconds, status IS DISTINCT FROM 'ERROR' AS ok,
       ttft, prefill, decode, input_tokens, output_tokens, cached_tokens,
       cpu_time, cpu_utilization, cpu_exact, cpu_pressure, cpu_throttled,
       memory_start, memory_peak, memory_growth, memory_file, memory_anon, memory_limit, memory_exact
FROM spans
WHERE bulk_id = $bulk AND model IS NOT NULL AND kind IN ('INTERNAL', 'CLIENT')
ORDER BY start_ns, span_id
