-- Of several bulks ($ids, with their begins and ends in the same order) how many attempts ended and decided, by bin: $bins of
-- each bulk's own time. In one scan of the time of all of them.
WITH asked AS (
    SELECT unnest($ids) AS bulk_id, unnest($firsts) AS first_ns, unnest($lasts) AS last_ns
)
SELECT a.bulk_id, least($bins - 1, floor((e.end_ns - a.first_ns) / (a.last_ns - a.first_ns) * $bins))::INTEGER AS bin, count(*) AS ended
FROM rules.ended_attempts e JOIN asked a USING (bulk_id)
WHERE e.state <> 'retried' AND e.start_ns BETWEEN $from_ns AND $to_ns AND e.end_ns >= a.first_ns
GROUP BY 1, 2
