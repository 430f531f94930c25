-- When each of the bulks $bulks had jobs, from its first enqueue to its last end (ns).
WITH its AS (
    SELECT bulk_id, kind, start_ns, end_ns, coalesce(wait, 0) AS wait, coalesce(delay, 0) AS delay
    FROM spans
    WHERE bulk_id IN (SELECT unnest($bulks)) AND start_ns BETWEEN $bulk_first AND $bulk_last AND kind IN ('PRODUCER', 'CONSUMER')
)
SELECT bulk_id AS bulk,
       min(CASE WHEN kind = 'CONSUMER' THEN start_ns - CAST(round((wait + delay) * 1e9) AS BIGINT)
                ELSE start_ns END) AS first_ns,
       max(end_ns) AS last_ns, count(*) AS jobs
FROM its
GROUP BY bulk_id ORDER BY first_ns, bulk_id
