-- Newest 200 bulks. Reads `listed` of summaries.py.
SELECT bulk_id, start_ns, array_to_string(models, ', ') AS models, sent, done, failed, cancelled, not_sent, duplicate,
       (end_ns - start_ns) / 1e9 AS duration,
       wait, tokens
FROM listed ORDER BY start_ns DESC, bulk_id LIMIT 200
