-- When each of the bulks $bulks had jobs, from its first enqueue to its last end (ns).
SELECT bulk_id AS bulk,
       min(CASE WHEN kind = 'CONSUMER' THEN start_ns - CAST(round((coalesce(wait, 0) + coalesce(delay, 0)) * 1e9) AS BIGINT)
                ELSE start_ns END) AS first_ns,
       max(end_ns) AS last_ns, count(*) FILTER (kind IN ('PRODUCER', 'CONSUMER')) AS jobs
FROM spans
WHERE bulk_id IN (SELECT unnest($bulks)) AND kind IN ('PRODUCER', 'CONSUMER')
GROUP BY bulk_id ORDER BY first_ns, bulk_id
