-- What else was to be sent for a bulk, one row: jobs that the broker did not take, by no send and for no attempt, with why;
-- and sends that it refused, as it had a job of that id. When that was; NULL where there was none of it.
WITH failed AS (
    SELECT rules.job_key(job_id, span_id) AS job, rules.send_state(status, outcome) AS state, start_ns, end_ns, trace_id || span_id AS span,
           coalesce(error_type, 'unknown') AS reason
    FROM spans
    WHERE bulk_id = $bulk AND start_ns BETWEEN $bulk_first AND $bulk_last AND kind = 'PRODUCER'
      AND rules.send_state(status, outcome) <> 'sent'
), others AS (
    SELECT job_id AS job FROM rules.sent_jobs WHERE bulk_id = $bulk AND start_ns BETWEEN $bulk_first AND $bulk_last
    UNION ALL
    SELECT job FROM rules.begun_attempts([$bulk], $bulk_first, $bulk_last)
), unsent AS (
    SELECT job, arg_max(reason, start_ns) AS reason FROM failed ANTI JOIN others USING (job)
    WHERE state = 'not_sent' GROUP BY job
)
SELECT (SELECT count(*) FROM unsent) AS not_sent, count(DISTINCT span) FILTER (state = 'duplicate') AS refused,
       (SELECT list(reason ORDER BY reason) FROM unsent) AS reasons, min(start_ns) AS start_ns, max(end_ns) AS end_ns
FROM failed
