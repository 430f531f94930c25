-- All bulks, newest first. The last attempt of a job decides, without an id each is one; a refused request is a bulk without jobs.
WITH last AS (
    SELECT bulk_id,
           arg_max(coalesce(outcome, '') = 'retry', (coalesce(attempt, 1), end_ns)) AS retried,
           arg_max(status IS DISTINCT FROM 'ERROR' AND failure_domain IS NULL AND coalesce(outcome, 'ok') = 'ok',
                   (coalesce(attempt, 1), end_ns)) AS ok
    FROM spans WHERE kind = 'CONSUMER' AND bulk_id IS NOT NULL GROUP BY bulk_id, coalesce(job_id, span_id)
), counted AS (
    SELECT bulk_id, count(*) FILTER (ok) AS done, count(*) FILTER (NOT ok AND NOT retried) AS failed FROM last GROUP BY bulk_id
), seen AS (
    SELECT bulk_id, min(start_ns) AS start_ns, max(end_ns) AS end_ns,
           count(DISTINCT coalesce(job_id, CASE WHEN kind = 'CONSUMER' THEN span_id END)) AS jobs,
           list_sort(list(DISTINCT model) FILTER (model IS NOT NULL)) AS models
    FROM spans WHERE bulk_id IS NOT NULL GROUP BY bulk_id
)
SELECT s.bulk_id AS id, s.start_ns, s.end_ns, s.jobs, coalesce(c.done, 0) AS done,
       coalesce(c.failed, 0) AS failed, coalesce(s.models, []) AS models
FROM seen s LEFT JOIN counted c USING (bulk_id)
ORDER BY s.start_ns DESC, s.bulk_id
