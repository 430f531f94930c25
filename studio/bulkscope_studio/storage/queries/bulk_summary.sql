-- Tables of a WITH clause: `summary` has one row for each bulk of the spans in `these`; `begun` has their attempts, of
-- rules.begun_attempts.
decided AS (
    SELECT bulk_id, job, rules.rank_state(max(rank)) AS state,
           arg_max(coalesce(failure_domain, 'unknown'), rank) AS domain, arg_max(start_ns, rank) AS start_ns,
           arg_max(seen_ns, rank) AS seen_ns, arg_max(attempt_state, rank) AS attempt_state
    FROM begun GROUP BY bulk_id, job
), sends AS (
    SELECT bulk_id, rules.job_key(job_id, span_id) AS job, job_id IS NOT NULL AS named,
           rules.send_state(status, outcome) AS state, start_ns, attempt, trace_id, span_id,
           rules.expires_at(start_ns, rules.credible_expires(expires)) AS expires_ns
    FROM these WHERE kind = 'PRODUCER'
), put AS (
    SELECT bulk_id, job, min(start_ns) AS first_ns, max(start_ns) AS last_ns, rules.last_expiry(true, expires_ns) AS expires_ns,
           rules.repeated(attempt, trace_id, span_id) AS repeated
    FROM sends WHERE state = 'sent' AND named GROUP BY bulk_id, job
), called AS (
    SELECT bulk_id, job_id AS job, max(start_ns) AS said_ns FROM these
    WHERE rules.is_cancellation(kind, outcome) AND job_id IS NOT NULL GROUP BY bulk_id, job_id
), known AS (
    SELECT coalesce(p.bulk_id, d.bulk_id) AS bulk_id, coalesce(p.job, d.job) AS job, d.state, d.domain, p.repeated,
           rules.called_off(
               c.said_ns, 'cancelled', p.last_ns, p.expires_ns, d.start_ns, d.seen_ns, d.attempt_state
           ) IS NOT NULL AS cancelled,
           CASE WHEN d.start_ns IS NULL OR d.state = 3 THEN p.expires_ns END AS expires_ns
    FROM put p FULL JOIN decided d ON p.bulk_id IS NOT DISTINCT FROM d.bulk_id AND p.job = d.job
         LEFT JOIN called c
         ON c.bulk_id IS NOT DISTINCT FROM coalesce(p.bulk_id, d.bulk_id) AND c.job = coalesce(p.job, d.job)
), counted AS (
    SELECT bulk_id, count(*) AS jobs, count(*) FILTER (state = 2) AS done, count(*) FILTER (state = 1) AS failed,
           count(*) FILTER (cancelled) AS cancelled, coalesce(sum(repeated), 0)::BIGINT AS repeated,
           min(expires_ns) FILTER (NOT cancelled) AS expires_ns
    FROM known GROUP BY bulk_id
), unsent AS (
    SELECT s.bulk_id, count(DISTINCT s.job) FILTER (s.state = 'not_sent' AND k.job IS NULL) AS not_sent,
           count(DISTINCT s.trace_id || s.span_id) FILTER (s.state = 'duplicate') AS refused
    FROM sends s LEFT JOIN known k ON k.bulk_id IS NOT DISTINCT FROM s.bulk_id AND k.job = s.job
    WHERE s.state <> 'sent' GROUP BY s.bulk_id
), blamed AS (
    SELECT bulk_id, string_agg(domain || ' ' || n, ', ' ORDER BY domain) AS domains
    FROM (SELECT bulk_id, domain, count(*) AS n FROM decided WHERE state = 1 GROUP BY ALL)
    GROUP BY bulk_id
), timed AS (
    -- As numbers 4 and 5 of the report, of all attempts that have ended.
    SELECT bulk_id, quantile_cont(wait, 0.95) FILTER (wait >= 0) AS wait_p95, quantile_cont(work, 0.95) AS work_p95
    FROM (
        SELECT b.bulk_id, (b.end_ns - b.start_ns) / 1e9 AS work,
               rules.waited(b.wait, b.start_ns, CASE WHEN rules.is_first(b.attempt) THEN p.first_ns END, b.delay) AS wait
        FROM begun b LEFT JOIN put p ON p.bulk_id IS NOT DISTINCT FROM b.bulk_id AND p.job = b.job
        WHERE b.end_ns IS NOT NULL
    ) GROUP BY bulk_id
), seen AS (
    SELECT bulk_id, min(start_ns) AS start_ns, max(end_ns) AS end_ns,
           -- The request knows how many it sent even when the span of a job was lost.
           TRY_CAST(sum(rules.credible_bulk_size(bulk_size)) FILTER (kind = 'SERVER') AS BIGINT) AS announced,
           list_sort(list(DISTINCT model) FILTER (rules.is_inference(kind, model))) AS models,
           TRY_CAST(sum(rules.credible_output_tokens(output_tokens)) FILTER (rules.is_inference(kind, model)) AS BIGINT)
               AS tokens,
           -- A sum over a sum, of the inferences that tell of their tokens, as number 12 of the report.
           TRY_CAST(sum(rules.credible_output_tokens(output_tokens)) FILTER (rules.is_inference(kind, model)) AS DOUBLE)
               / nullif(sum(end_ns - start_ns) FILTER (
                     rules.is_inference(kind, model) AND rules.credible_output_tokens(output_tokens) IS NOT NULL
                 ) / 1e9, 0) AS tokens_per_s,
           -- Rounded: threads add in any order. Waits below 0, which are of clocks that disagree, are left out.
           round(avg(rules.credible_wait(wait)) FILTER (kind = 'CONSUMER' AND wait >= 0), 9) AS wait
    FROM these GROUP BY bulk_id
), places AS (
    SELECT bulk_id, list_sort(list(DISTINCT service) FILTER (service IS NOT NULL)) AS services,
           list_sort(list(DISTINCT host) FILTER (host IS NOT NULL)) AS hosts,
           list_sort(list(DISTINCT worker) FILTER (worker IS NOT NULL)) AS workers
    FROM (
        SELECT DISTINCT bulk_id, service_name AS service, host_name AS host,
               CASE WHEN kind = 'CONSUMER' THEN rules.worker_name(worker, host_name, pid, service_instance_id, service_name) END AS worker
        FROM these
    ) GROUP BY bulk_id
), summary AS (
    SELECT bulk_id, start_ns, end_ns, greatest(coalesce(announced, 0) - coalesce(repeated, 0), coalesce(jobs, 0)) AS sent,
           coalesce(jobs, 0) AS jobs, coalesce(done, 0) AS done, coalesce(failed, 0) AS failed, domains,
           coalesce(models, []) AS models, tokens, wait, coalesce(cancelled, 0) AS cancelled,
           coalesce(not_sent, 0) AS not_sent, coalesce(refused, 0) + coalesce(repeated, 0) AS duplicate, c.expires_ns,
           coalesce(services, []) AS services, coalesce(hosts, []) AS hosts, coalesce(workers, []) AS workers,
           wait_p95, work_p95, tokens_per_s
    FROM seen LEFT JOIN places USING (bulk_id) LEFT JOIN counted c USING (bulk_id) LEFT JOIN timed USING (bulk_id)
         LEFT JOIN unsent USING (bulk_id) LEFT JOIN blamed USING (bulk_id)
)
