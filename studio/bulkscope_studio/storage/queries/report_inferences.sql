-- One row per inference of a bulk. seconds: duration of the span; cpus: cores that its process may use.
SELECT s.job_id, s.span_id, s.model,
       s.worker,
       (s.end_ns - s.start_ns) / 1e9 AS seconds, s.status IS DISTINCT FROM 'ERROR' AS ok,
       s.ttft, s.prefill, s.decode, s.input_tokens, s.output_tokens, s.cached_tokens,
       s.cpu_time, s.cpu_utilization, s.cpu_exact, s.cpu_pressure, s.cpu_throttled,
       s.memory_start, s.memory_peak, s.memory_growth, s.memory_file, s.memory_anon, s.memory_limit, s.memory_exact,
       s.start_ns, s.end_ns, coalesce(s.host_name, '') AS host_name,
       rules.credible_cpus(TRY_CAST(json_extract(r.attributes, '$."bulk.worker.cpus"') AS DOUBLE)) AS cpus
FROM spans s LEFT JOIN resources r ON r.resource_id = s.resource_id
WHERE s.bulk_id = $bulk AND s.start_ns BETWEEN $bulk_first AND $bulk_last AND s.model IS NOT NULL AND s.kind IN ('INTERNAL', 'CLIENT')
ORDER BY s.start_ns, s.span_id
