-- One row per attempt of a bulk's jobs, and one per job that was sent and nobody has taken.
SELECT job_id, attempt, span_id, trace_id, enqueue_ns, start_ns, end_ns, seen_ns, wait, delay, import_time, retried, ok,
       failure_domain, error_type, worker, host_name, queue, sent_ns, instance, decides
FROM rules.attempts([$bulk], $bulk_first, $bulk_last)
ORDER BY enqueue_ns, start_ns, job_id, span_id
