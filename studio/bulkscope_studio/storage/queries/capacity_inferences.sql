-- Inferences that ended in one of the windows (lists $firsts and $lasts, ns). Columns as in explain_inferences.
WITH windows AS (
    SELECT unnest($firsts) AS first_ns, unnest($lasts) AS last_ns
)
SELECT true AS mine, trace_id, job_id, model, coalesce(host_name, '') AS host_name,
       worker, service_instance_id AS instance,
       start_ns, end_ns, status IS DISTINCT FROM 'ERROR' AS ok, prefill, decode, input_tokens, output_tokens,
       cached_tokens, cpu_time, cpu_utilization, cpu_pressure, cpu_throttled, cpu_wait, memory_peak, memory_file,
       memory_anon, memory_limit
FROM spans s
WHERE kind IN ('INTERNAL', 'CLIENT') AND model IS NOT NULL AND job_id IS NOT NULL AND s.end_ns >= list_min($firsts) AND s.start_ns <= list_max($lasts)
  AND EXISTS (SELECT 1 FROM windows w WHERE s.end_ns >= w.first_ns AND s.start_ns <= w.last_ns)
ORDER BY start_ns, span_id
