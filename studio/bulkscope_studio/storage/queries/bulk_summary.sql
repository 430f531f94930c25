-- Tables of a WITH clause: `summary` has one row for each bulk of the spans in `these`. The last attempt of a job decides:
-- the highest, of equal ones the one that began last; without an id each is a job, without a number the first.
attempts AS (
    SELECT bulk_id, coalesce(job_id, span_id) AS job, coalesce(failure_domain, 'unknown') AS domain,
           -- One number that orders attempts: to compare numbers costs half of comparing rows. Its last digit is the
           -- outcome, 0 failed, 1 done, 2 to be tried again.
           CAST(coalesce(attempt, 1) AS HUGEINT) * 73786976294838206464 + CAST(start_ns AS HUGEINT) * 4
             + CASE WHEN outcome = 'retry' THEN 2
                    WHEN status IS DISTINCT FROM 'ERROR' AND failure_domain IS NULL AND coalesce(outcome, 'ok') = 'ok' THEN 1
                    ELSE 0 END AS place
    FROM these WHERE kind = 'CONSUMER'
), decided AS (
    SELECT bulk_id, max(place) & 3 AS outcome, arg_max(domain, place) AS domain FROM attempts GROUP BY bulk_id, job
), counted AS (
    SELECT bulk_id, count(*) FILTER (outcome = 1) AS done, count(*) FILTER (outcome = 0) AS failed
    FROM decided GROUP BY bulk_id
), blamed AS (
    SELECT bulk_id, string_agg(domain || ' ' || n, ', ' ORDER BY domain) AS domains
    FROM (SELECT bulk_id, domain, count(*) AS n FROM decided WHERE outcome = 0 GROUP BY bulk_id, domain) GROUP BY bulk_id
), seen AS (
    SELECT bulk_id, min(start_ns) AS start_ns, max(end_ns) AS end_ns,
           count(DISTINCT coalesce(job_id, CASE WHEN kind = 'CONSUMER' THEN span_id END)) AS jobs,
           -- The request knows how many it sent even when the span of a job was lost.
           TRY_CAST(sum(bulk_size) FILTER (kind = 'SERVER') AS BIGINT) AS announced,
           list_sort(list(DISTINCT model) FILTER (model IS NOT NULL)) AS models,
           TRY_CAST(sum(output_tokens) AS BIGINT) AS tokens,
           -- Rounded: threads add in any order. What no clock can have measured is left out, as waits below 0 are.
           round(avg(wait) FILTER (kind = 'CONSUMER' AND wait >= 0 AND wait < 1e9), 9) AS wait
    FROM these GROUP BY bulk_id
), summary AS (
    SELECT bulk_id, start_ns, end_ns, greatest(coalesce(announced, 0), jobs) AS sent, jobs, coalesce(done, 0) AS done,
           coalesce(failed, 0) AS failed, domains, coalesce(models, []) AS models, tokens, wait
    FROM seen LEFT JOIN counted USING (bulk_id) LEFT JOIN blamed USING (bulk_id)
)
