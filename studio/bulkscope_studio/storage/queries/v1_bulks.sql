-- A page of bulks. Reads `listed` of summaries.py. {order} is put in by services/listing.py; a filter is off when NULL.
SELECT l.bulk_id AS id, l.start_ns, l.end_ns, (l.end_ns - l.start_ns) / 1e9 AS took_s, l.sent AS sent_jobs, l.done AS done_jobs,
       l.failed AS failed_jobs, l.cancelled AS cancelled_jobs, l.not_sent AS not_sent_jobs, l.duplicate AS duplicate_jobs,
       l.domains AS failure_domains, l.models, l.tokens AS output_tokens, l.wait AS wait_mean_s, l.wait_p95 AS wait_p95_s, l.work_p95 AS work_p95_s, l.tokens_per_s,
       l.state, l.last_ns, l.spans, l.logs, count(*) OVER () AS total
FROM (
    SELECT s.*, h.last_ns, h.spans, h.logs,
           CASE WHEN sent > 0 AND done + failed + cancelled >= sent THEN 'complete' WHEN coalesce(h.last_ns, s.end_ns) > $quiet_ns THEN 'running'
                ELSE 'stopped' END AS state
    FROM listed s LEFT JOIN (
        SELECT bulk_id, max(last_ns) AS last_ns, sum(spans)::BIGINT AS spans, sum(logs)::BIGINT AS logs
        FROM (SELECT bulk_id, last_ns, spans, logs FROM bulks UNION ALL SELECT bulk_id, last_ns, spans, logs FROM bulk_changes)
        GROUP BY bulk_id
    ) h USING (bulk_id)
) l
WHERE ($id IS NULL OR l.bulk_id = $id) AND ($search IS NULL OR contains(lower(l.bulk_id), lower($search)))
  AND ($since_ns IS NULL OR l.end_ns >= $since_ns) AND ($until_ns IS NULL OR l.start_ns <= $until_ns)
  AND ($model IS NULL OR list_contains(l.models, $model)) AND ($state IS NULL OR l.state = $state)
  AND ($failed IS NULL OR (l.failed > 0) = $failed)
  AND ($service IS NULL OR list_contains(l.services, $service)) AND ($host IS NULL OR list_contains(l.hosts, $host))
  AND ($worker IS NULL OR list_contains(l.workers, $worker))
ORDER BY {order} LIMIT $limit OFFSET $offset
