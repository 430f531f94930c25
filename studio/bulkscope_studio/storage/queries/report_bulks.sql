-- All bulks, or the newest $most, newest first; a refused request is a bulk without jobs. Reads `listed` of summaries.py.
SELECT bulk_id AS id, start_ns, end_ns, jobs, sent, done, failed, cancelled, not_sent, duplicate, models
FROM listed ORDER BY start_ns DESC, bulk_id LIMIT $most
