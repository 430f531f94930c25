-- What is shown of the inferences of a model (analysis/report/figures.py computes) that v1_inference_filter.sql wants; of very
-- many a sample.
SELECT model, coalesce(host_name, '') AS host, (end_ns - start_ns) / 1e9 AS seconds, status IS DISTINCT FROM 'ERROR' AS ok,
       rules.computed_tokens(input_tokens, cached_tokens) AS computed_tokens, output_tokens, ttft, prefill, decode,
       cpu_time, cpu_exact, memory_peak, memory_exact
FROM spans /*sample*/ WHERE {filter}
