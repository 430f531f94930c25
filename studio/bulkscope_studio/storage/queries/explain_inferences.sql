-- Inferences from $first to $last: the bulk's own, and others of the same models, which show how the time of one
-- depends on how many run beside it.
WITH models AS (
    SELECT DISTINCT model FROM spans
    WHERE bulk_id = $bulk AND start_ns BETWEEN $bulk_first AND $bulk_last AND rules.is_inference(kind, model)
)
SELECT bulk_id IS NOT DISTINCT FROM $bulk AS mine, trace_id, job_id, model, host_name, worker, instance,
       start_ns, end_ns, ok, prefill, decode, input_tokens, output_tokens,
       cached_tokens, cpu_time, cpu_utilization, cpu_pressure, cpu_throttled, cpu_wait,
       rules.memory_of_worker(apart, memory_peak) AS memory_peak, rules.memory_of_worker(apart, memory_file) AS memory_file,
       rules.memory_of_worker(apart, memory_anon) AS memory_anon, rules.memory_of_worker(apart, memory_limit) AS memory_limit
FROM rules.inferences
WHERE model IN (SELECT model FROM models)
  -- What began before the window and before the bulk is left out at the first look at a row group.
  AND (bulk_id = $bulk OR end_ns BETWEEN $first AND $last) AND end_ns >= least($first, $bulk_first)
  AND start_ns <= greatest($last, $bulk_last)
ORDER BY start_ns, span_id
