-- The traces and spans that an id names, which is of one length for each.
SELECT 'trace' AS kind, trace_id AS id, min(bulk_id) AS bulk, trace_id, min(start_ns) AS first_ns
FROM rules.recorded_spans WHERE length($text) = 32 AND trace_id = $text GROUP BY trace_id
UNION ALL
SELECT 'span', span_id, min(bulk_id), trace_id, min(start_ns)
FROM rules.recorded_spans WHERE length($text) = 16 AND span_id = $text GROUP BY span_id, trace_id
ORDER BY first_ns DESC LIMIT $limit
