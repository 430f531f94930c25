-- When each of the bulks $bulks had jobs, from its first enqueue to its last end (ns).
WITH its AS (
    -- What no clock can have measured (a sender's error) would not even fit the nanoseconds of a date.
    SELECT bulk_id, kind, start_ns, end_ns, CASE WHEN abs(wait) < 1e9 THEN wait ELSE 0 END AS wait,
           CASE WHEN abs(delay) < 1e9 THEN delay ELSE 0 END AS delay
    FROM spans
    WHERE bulk_id IN (SELECT unnest($bulks)) AND start_ns BETWEEN $bulk_first AND $bulk_last AND kind IN ('PRODUCER', 'CONSUMER')
)
SELECT bulk_id AS bulk,
       min(CASE WHEN kind = 'CONSUMER' THEN start_ns - TRY_CAST(round((wait + delay) * 1e9) AS BIGINT)
                ELSE start_ns END) AS first_ns,
       max(end_ns) AS last_ns, count(*) AS jobs
FROM its
GROUP BY bulk_id ORDER BY first_ns, bulk_id
