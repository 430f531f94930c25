-- Inferences that ended in one of the windows (lists $firsts and $lasts, ns). Columns as in explain_inferences.
WITH windows AS (
    SELECT unnest($firsts) AS first_ns, unnest($lasts) AS last_ns
)
SELECT true AS mine, trace_id, job_id, model, host_name, worker, instance,
       start_ns, end_ns, ok, prefill, decode, input_tokens, output_tokens,
       cached_tokens, cpu_time, cpu_utilization, cpu_pressure, cpu_throttled, cpu_wait,
       rules.memory_of_worker(apart, memory_peak) AS memory_peak, rules.memory_of_worker(apart, memory_file) AS memory_file,
       rules.memory_of_worker(apart, memory_anon) AS memory_anon, rules.memory_of_worker(apart, memory_limit) AS memory_limit
FROM rules.inferences i
WHERE job_id IS NOT NULL AND i.end_ns >= list_min($firsts) AND i.start_ns <= list_max($lasts)
  AND EXISTS (SELECT 1 FROM windows w WHERE i.end_ns >= w.first_ns AND i.start_ns <= w.last_ns)
ORDER BY start_ns, span_id
