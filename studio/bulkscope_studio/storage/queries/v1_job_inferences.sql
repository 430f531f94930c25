-- Inferences of one job, oldest first.
SELECT trace_id, span_id, model, worker, host_name AS host, start_ns AS started_ns, end_ns AS ended_ns, seconds AS inference_s, ok,
       ttft AS ttft_s, prefill AS prefill_s, decode AS decode_s, input_tokens, output_tokens, cached_tokens, cpu_time AS cpu_s,
       cpu_wait AS cpu_wait_s, cpu_exact, memory_start AS memory_start_bytes, memory_peak AS memory_peak_bytes,
       memory_limit AS memory_limit_bytes, memory_exact
FROM rules.inferences
WHERE bulk_id = $bulk AND (job_id = $job OR span_id = $job) AND start_ns BETWEEN $bulk_first AND $bulk_last
ORDER BY start_ns, span_id LIMIT 1000
