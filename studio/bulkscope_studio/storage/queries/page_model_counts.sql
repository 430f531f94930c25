-- What is counted of each model, over all that is stored.
SELECT model, count(*) AS n, count(*) FILTER (NOT ok) AS failed, sum(output_tokens) AS output_tokens,
       max(memory_peak) AS peak
FROM inferences GROUP BY model ORDER BY n DESC, model LIMIT 50
