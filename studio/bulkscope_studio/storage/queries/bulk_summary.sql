-- Tables of a WITH clause: `summary` has one row for each bulk of the spans in `these`; `begun` has their attempts, of
-- rules.begun_attempts.
decided AS (
    SELECT bulk_id, rules.rank_state(max(rank)) AS state, arg_max(coalesce(failure_domain, 'unknown'), rank) AS domain
    FROM begun GROUP BY bulk_id, job
), counted AS (
    SELECT bulk_id, count(*) FILTER (state = 2) AS done, count(*) FILTER (state = 1) AS failed FROM decided GROUP BY bulk_id
), blamed AS (
    SELECT bulk_id, string_agg(domain || ' ' || n, ', ' ORDER BY domain) AS domains
    FROM (SELECT bulk_id, domain, count(*) AS n FROM decided WHERE state = 1 GROUP BY ALL)
    GROUP BY bulk_id
), known AS (
    SELECT bulk_id, count(DISTINCT job) AS jobs
    FROM (SELECT bulk_id, job_id AS job FROM these WHERE kind = 'PRODUCER' UNION ALL SELECT bulk_id, job FROM begun)
    GROUP BY bulk_id
), seen AS (
    SELECT bulk_id, min(start_ns) AS start_ns, max(end_ns) AS end_ns,
           -- The request knows how many it sent even when the span of a job was lost.
           TRY_CAST(sum(rules.credible_bulk_size(bulk_size)) FILTER (kind = 'SERVER') AS BIGINT) AS announced,
           list_sort(list(DISTINCT model) FILTER (rules.is_inference(kind, model))) AS models,
           TRY_CAST(sum(rules.credible_output_tokens(output_tokens)) FILTER (rules.is_inference(kind, model)) AS BIGINT)
               AS tokens,
           -- Rounded: threads add in any order. Waits below 0, which are of clocks that disagree, are left out.
           round(avg(rules.credible_wait(wait)) FILTER (kind = 'CONSUMER' AND wait >= 0), 9) AS wait
    FROM these GROUP BY bulk_id
), summary AS (
    SELECT bulk_id, start_ns, end_ns, greatest(coalesce(announced, 0), coalesce(jobs, 0)) AS sent,
           coalesce(jobs, 0) AS jobs, coalesce(done, 0) AS done, coalesce(failed, 0) AS failed, domains,
           coalesce(models, []) AS models, tokens, wait
    FROM seen LEFT JOIN known USING (bulk_id) LEFT JOIN counted USING (bulk_id) LEFT JOIN blamed USING (bulk_id)
)
