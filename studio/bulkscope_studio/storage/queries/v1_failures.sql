-- Failed attempts by domain and type of error, most first, of one bulk or of all, that ended from $from_ns to $to_ns.
SELECT coalesce(failure_domain, 'unknown') AS failure_domain, coalesce(error_type, 'unknown') AS error_type,
       count(*) AS attempts, count(*) FILTER (state = 'retried') AS retried_attempts,
       count(DISTINCT rules.job_key(job_id, span_id)) AS jobs, count(DISTINCT bulk_id) AS bulks,
       count(DISTINCT coalesce(instance, worker)) AS workers, min(end_ns) AS first_ns, max(end_ns) AS last_ns,
       arg_min(struct_pack(bulk := bulk_id, job := rules.job_key(job_id, span_id), worker := worker, trace_id := trace_id,
                           span_id := span_id, ended_ns := end_ns), end_ns) AS example
FROM rules.ended_attempts
WHERE (state = 'failed' OR (state = 'retried' AND (failure_domain IS NOT NULL OR error_type IS NOT NULL)))
  AND ($bulk IS NULL OR bulk_id = $bulk) AND end_ns >= $from_ns AND end_ns <= $to_ns AND start_ns >= $first_ns
GROUP BY 1, 2 ORDER BY attempts DESC, 1, 2 LIMIT 200
