-- Models side by side; of one bulk when $bulk_id is not NULL. Of very many inferences a sample (web/data.py).
SELECT model, count(*) AS n, count(*) FILTER (status = 'ERROR') AS failed,
       approx_quantile((end_ns - start_ns) / 1e9, 0.5) AS time_p50,
       approx_quantile((end_ns - start_ns) / 1e9, 0.95) AS time_p95,
       sum(output_tokens) AS output_tokens, avg(tokens_per_second) AS rate, avg(decode_tokens_per_second) AS decode_rate,
       sum(cpu_time) FILTER (output_tokens > 0) / nullif(sum(output_tokens) FILTER (cpu_time IS NOT NULL), 0) AS cpu_per_token,
       max(memory_peak) AS peak,
       count(*) FILTER (cpu_exact = false OR memory_exact = false) / count(*) AS estimated
FROM spans /*sample*/ WHERE model IS NOT NULL AND ($bulk_id IS NULL OR bulk_id = $bulk_id) AND start_ns BETWEEN $bulk_first AND $bulk_last
GROUP BY model ORDER BY n DESC LIMIT 50
