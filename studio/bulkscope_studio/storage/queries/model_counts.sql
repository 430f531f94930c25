-- What is counted of each model, over all that is stored.
SELECT model, count(*) AS n, count(*) FILTER (status = 'ERROR') AS failed, sum(output_tokens) AS output_tokens,
       max(memory_peak) AS peak
FROM spans WHERE rules.is_inference(kind, model) GROUP BY model ORDER BY n DESC, model LIMIT 50
