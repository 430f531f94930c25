-- One row a job of a bulk: its deciding attempt, how many there were, and the good inferences of that attempt.
WITH attempts AS (
    SELECT *, rules.job_key(job_id, span_id) AS job FROM rules.attempts([$bulk], $bulk_first, $bulk_last)
), tries AS (
    SELECT job, count(start_ns) AS attempts FROM attempts GROUP BY job
), used AS (
    SELECT a.job, min(i.model) AS model, sum(i.seconds) AS inference_s, sum(i.prefill) AS prefill_s, sum(i.decode) AS decode_s,
           min(i.ttft) AS ttft_s, sum(i.input_tokens)::BIGINT AS input_tokens, sum(i.cached_tokens)::BIGINT AS cached_tokens,
           sum(rules.computed_tokens(i.input_tokens, i.cached_tokens))::BIGINT AS computed_tokens,
           sum(i.output_tokens)::BIGINT AS output_tokens, sum(i.cpu_time) AS cpu_s, sum(i.cpu_wait) AS cpu_wait_s,
           max(i.memory_peak)::BIGINT AS memory_peak_bytes
    FROM attempts a JOIN rules.inferences i
         ON i.job_id = a.job_id AND i.start_ns BETWEEN a.start_ns AND coalesce(a.end_ns, $bulk_last)
    WHERE a.decides AND i.bulk_id = $bulk AND i.start_ns BETWEEN $bulk_first AND $bulk_last
    GROUP BY a.job
)
SELECT a.job AS id, CASE WHEN a.called_off IS NOT NULL THEN 'cancelled' WHEN a.start_ns IS NULL THEN 'waiting'
                         WHEN a.end_ns IS NULL THEN 'running'
                         WHEN a.state = 'retried' THEN 'retrying' ELSE a.state END AS status,
       coalesce(a.attempt, CASE WHEN a.start_ns IS NOT NULL THEN 1 END) AS attempt, t.attempts, u.model, a.worker, a.host_name AS host,
       a.queue, a.enqueue_ns AS enqueued_ns, a.start_ns AS started_ns, a.end_ns AS ended_ns, a.wait AS wait_s,
       a.delay AS scheduled_delay_s, (a.end_ns - a.start_ns) / 1e9 AS work_s, u.* EXCLUDE (job, model),
       a.failure_domain, a.error_type, a.trace_id, a.span_id
FROM attempts a JOIN tries t USING (job) LEFT JOIN used u USING (job)
WHERE a.decides
ORDER BY a.enqueue_ns, a.start_ns, a.job
