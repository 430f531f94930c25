-- Jobs that an id, or the first part of one, names. Each has a send or an attempt, so that no other span is looked at.
SELECT 'job' AS kind, job_id AS id, bulk_id AS bulk, arg_min(trace_id, start_ns) AS trace_id, min(start_ns) AS first_ns
FROM rules.recorded_spans
WHERE kind IN ('PRODUCER', 'CONSUMER') AND starts_with(job_id, $text)
GROUP BY job_id, bulk_id ORDER BY job_id = $text DESC, first_ns DESC, id LIMIT $limit
