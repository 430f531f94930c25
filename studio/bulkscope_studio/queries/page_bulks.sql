-- Newest 200 bulks. A job's last attempt decides whether it is done or failed; without an id each is a job.
WITH recent AS (
    SELECT bulk_id, min(start_ns) AS start_ns, max(end_ns) AS end_ns, max(bulk_size) AS size,
           count(*) FILTER (kind = 'PRODUCER') AS produced, sum(output_tokens) AS tokens,
           avg(wait) FILTER (kind = 'CONSUMER' AND wait >= 0) AS wait,
           string_agg(DISTINCT model, ', ' ORDER BY model) AS models
    FROM spans WHERE bulk_id IS NOT NULL GROUP BY bulk_id ORDER BY start_ns DESC LIMIT 200
), jobs AS (
    SELECT bulk_id, arg_max(coalesce(status, 'UNSET'), (coalesce(attempt, 1), end_ns)) AS status
    FROM spans WHERE kind = 'CONSUMER' AND bulk_id IN (SELECT bulk_id FROM recent) GROUP BY bulk_id, coalesce(job_id, span_id)
), counted AS (
    SELECT bulk_id, count(*) FILTER (status <> 'ERROR') AS done, count(*) FILTER (status = 'ERROR') AS failed
    FROM jobs GROUP BY bulk_id
)
SELECT r.bulk_id, r.start_ns, r.models, greatest(coalesce(r.size, 0), r.produced, coalesce(done + failed, 0)) AS sent,
       coalesce(done, 0) AS done, coalesce(failed, 0) AS failed, (r.end_ns - r.start_ns) / 1e9 AS duration, r.wait, r.tokens
FROM recent r LEFT JOIN counted USING (bulk_id) ORDER BY r.start_ns DESC
