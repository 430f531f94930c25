-- Attempts of one bulk for the lanes, oldest first, at most $limit; `total` says how many there are.
WITH inner_spans AS (
    SELECT parent_span_id, min(start_ns) AS infer_start, max(end_ns) AS infer_end FROM spans
    WHERE bulk_id = $bulk_id AND start_ns BETWEEN $bulk_first AND $bulk_last AND model IS NOT NULL GROUP BY parent_span_id
)
SELECT c.trace_id, c.span_id, c.job_id, coalesce(c.attempt, 1) AS attempt, c.start_ns, c.end_ns, c.wait,
       c.worker, c.status = 'ERROR' AS failed,
       c.error_type, c.failure_domain, infer_start, infer_end, count(*) OVER () AS total
FROM spans c LEFT JOIN inner_spans i ON i.parent_span_id = c.span_id
WHERE c.bulk_id = $bulk_id AND c.start_ns BETWEEN $bulk_first AND $bulk_last AND c.kind = 'CONSUMER' ORDER BY c.start_ns LIMIT $limit
