-- One row per inference of a bulk. cpus: cores that its process may use.
SELECT i.job_id, i.span_id, i.model, i.worker, i.seconds, i.ok,
       i.ttft, i.prefill, i.decode, i.input_tokens, i.output_tokens, i.cached_tokens, i.prompts,
       i.cpu_time, i.cpu_utilization, i.cpu_exact, i.cpu_pressure, i.cpu_throttled, i.cpu_wait,
       i.memory_start, i.memory_peak, i.memory_growth, i.memory_file, i.memory_anon, i.memory_limit, i.memory_exact,
       i.start_ns, i.end_ns, i.host_name,
       rules.credible_cpus(TRY_CAST(json_extract(r.attributes, '$."bulk.worker.cpus"') AS DOUBLE)) AS cpus
FROM rules.inferences i LEFT JOIN resources r ON r.resource_id = i.resource_id
WHERE i.bulk_id = $bulk AND i.start_ns BETWEEN $bulk_first AND $bulk_last
ORDER BY i.start_ns, i.span_id
