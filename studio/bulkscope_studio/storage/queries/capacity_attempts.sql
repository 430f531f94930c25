-- Every attempt at a job in one of the windows (lists $firsts and $lasts, ns), and sent jobs that nobody has taken.
-- Columns as in report_attempts, and bulk_id.
WITH windows AS (
    SELECT unnest($firsts) AS first_ns, unnest($lasts) AS last_ns
)
SELECT job_id, attempt, span_id, trace_id, enqueue_ns, start_ns, end_ns, seen_ns, wait, delay, import_time, retried, ok,
       failure_domain, error_type, worker, host_name, queue, sent_ns, instance, decides, bulk_id
FROM rules.attempts([], list_min($firsts), list_max($lasts), every_job := true) a
WHERE EXISTS (
    SELECT 1 FROM windows w
    WHERE coalesce(a.seen_ns, a.enqueue_ns) >= w.first_ns AND coalesce(a.start_ns, a.enqueue_ns) <= w.last_ns)
ORDER BY enqueue_ns, start_ns, job_id, span_id
