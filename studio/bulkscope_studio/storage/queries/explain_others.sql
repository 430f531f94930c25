-- What the workers did for other bulks, and for no bulk, from $first to $last: ended attempts, and begun ones that
-- have not ended. Columns as in report_attempts; what became of them does not matter.
SELECT job_id, attempt, span_id, CAST(NULL AS VARCHAR) AS trace_id,
       rules.enqueued_before(start_ns, wait, delay) AS enqueue_ns, start_ns, end_ns, seen_ns, wait, delay,
       CAST(NULL AS BOOLEAN) AS retried, CAST(NULL AS BOOLEAN) AS ok, CAST(NULL AS VARCHAR) AS failure_domain,
       CAST(NULL AS VARCHAR) AS error_type, worker, host_name, queue, CAST(NULL AS BIGINT) AS sent_ns, instance,
       false AS decides
FROM rules.begun_attempts([], $first, $last, every_job := true)
WHERE bulk_id IS DISTINCT FROM $bulk
ORDER BY start_ns, span_id
