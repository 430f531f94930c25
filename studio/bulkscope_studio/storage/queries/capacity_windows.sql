-- When each of the bulks $bulks had jobs, from its first enqueue to its last end (ns).
WITH its AS (
    SELECT bulk_id, rules.enqueued_before(start_ns, coalesce(wait, 0), delay) AS first_ns, end_ns AS last_ns
    FROM rules.ended_attempts
    WHERE bulk_id IN (SELECT unnest($bulks)) AND start_ns BETWEEN $bulk_first AND $bulk_last
    UNION ALL
    SELECT bulk_id, start_ns, start_ns FROM rules.sent_jobs
    WHERE bulk_id IN (SELECT unnest($bulks)) AND start_ns BETWEEN $bulk_first AND $bulk_last
)
SELECT bulk_id AS bulk, min(first_ns) AS first_ns, max(last_ns) AS last_ns, count(*) AS jobs
FROM its
GROUP BY bulk_id ORDER BY first_ns, bulk_id
