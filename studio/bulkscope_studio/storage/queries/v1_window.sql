-- The first and the last time of a bulk, as services/bulks.py has them of whole tables (`Own.window`): a third of the time.
WITH known AS (
    SELECT least(enqueue_ns, start_ns) AS first_ns, greatest(enqueue_ns, start_ns, seen_ns, end_ns) AS last_ns
    FROM rules.attempts([$bulk], $bulk_first, $bulk_last)
    UNION ALL
    SELECT start_ns, end_ns FROM spans
    WHERE bulk_id = $bulk AND start_ns BETWEEN $bulk_first AND $bulk_last
      AND ((kind = 'SERVER' AND rules.request_sends(http_method, bulk_size))
           OR (kind = 'PRODUCER' AND rules.send_state(status, outcome) <> 'sent'))
)
SELECT min(first_ns) AS first_ns, max(last_ns) AS last_ns FROM known
