-- Workers of bulks that a name, or the first part of one, names. Reads `listed` of summaries.py.
SELECT 'worker' AS kind, worker AS id, NULL AS bulk, NULL AS trace_id, max(start_ns) AS first_ns
FROM (SELECT unnest(workers) AS worker, start_ns FROM listed)
WHERE starts_with(worker, $text) GROUP BY worker ORDER BY worker = $text DESC, first_ns DESC, id LIMIT $limit
