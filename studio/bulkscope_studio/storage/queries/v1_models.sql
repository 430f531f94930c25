-- What is counted of each model (`whole`), and of each of its hosts: all inferences that v1_inference_filter.sql wants, which
-- services/figures.py puts in.
SELECT model, coalesce(host_name, '') AS host, grouping(host_name) = 1 AS whole, count(*) AS n,
       count(*) FILTER (status = 'ERROR') AS failed, count(DISTINCT hash(bulk_id, job_id)) FILTER (job_id IS NOT NULL) AS jobs,
       sum(input_tokens) AS input_tokens, sum(output_tokens) AS output_tokens, max(memory_peak) AS peak,
       count(*) FILTER (whole) OVER () AS models
FROM spans WHERE {filter}
GROUP BY GROUPING SETS ((model), (model, host_name))
ORDER BY whole DESC, n DESC, model, host LIMIT $most
