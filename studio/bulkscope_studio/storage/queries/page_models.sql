-- Models side by side; of one bulk when $bulk_id is not NULL. Of very many inferences a sample (web/data.py). By the
-- report's rules: the quantiles are those of the inferences (a sketch takes three times as long, and of 26 inferences put
-- p95 at 5.6 s where it was 4.7), a rate is a sum over a sum of those that have both.
SELECT model, count(*) AS n, count(*) FILTER (status = 'ERROR') AS failed,
       quantile_cont((end_ns - start_ns) / 1e9, 0.5) AS time_p50,
       quantile_cont((end_ns - start_ns) / 1e9, 0.95) AS time_p95,
       sum(output_tokens) AS output_tokens,
       sum(output_tokens) / nullif(sum((end_ns - start_ns) / 1e9) FILTER (output_tokens IS NOT NULL), 0) AS rate,
       sum(output_tokens) FILTER (decode IS NOT NULL) / nullif(sum(decode) FILTER (output_tokens IS NOT NULL), 0) AS decode_rate,
       sum(cpu_time) FILTER (output_tokens > 0) / nullif(sum(output_tokens) FILTER (cpu_time IS NOT NULL), 0) AS cpu_per_token,
       max(memory_peak) AS peak,
       count(*) FILTER (cpu_exact = false OR memory_exact = false) / count(*) AS estimated
FROM spans /*sample*/ WHERE model IS NOT NULL AND ($bulk_id IS NULL OR bulk_id = $bulk_id) AND start_ns BETWEEN $bulk_first AND $bulk_last
GROUP BY model ORDER BY n DESC LIMIT 50
