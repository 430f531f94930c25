-- Attempts of one bulk for the lanes, oldest first, at most $limit; `total` says how many there are.
WITH inner_spans AS (
    SELECT parent_span_id, min(start_ns) AS infer_start, max(end_ns) AS infer_end FROM spans
    WHERE bulk_id = $bulk_id AND start_ns BETWEEN $bulk_first AND $bulk_last AND rules.is_inference(kind, model)
    GROUP BY parent_span_id
)
SELECT trace_id, span_id, job_id, coalesce(attempt, 1) AS attempt, start_ns, end_ns, wait, worker,
       state = 'failed' AS failed, error_type, failure_domain, infer_start, infer_end, count(*) OVER () AS total
FROM rules.ended_attempts c LEFT JOIN inner_spans i ON i.parent_span_id = c.span_id
WHERE bulk_id = $bulk_id AND start_ns BETWEEN $bulk_first AND $bulk_last
ORDER BY start_ns LIMIT $limit
