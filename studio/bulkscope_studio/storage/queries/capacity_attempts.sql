-- Every attempt at a job in one of the windows (lists $firsts and $lasts, ns): ended ones, begun ones that have not
-- ended, and sent jobs that nobody has taken. Columns as in report_attempts, and bulk_id. The windows' own bounds come
-- first: DuckDB leaves out row groups of other times. What a process logged and its span are told an hour apart at most.
WITH windows AS (
    SELECT unnest($firsts) AS first_ns, unnest($lasts) AS last_ns
), done AS (
    SELECT * FROM spans s
    WHERE kind = 'CONSUMER' AND s.end_ns >= list_min($firsts) AND s.start_ns <= list_max($lasts)
      AND EXISTS (SELECT 1 FROM windows w WHERE s.end_ns >= w.first_ns AND s.start_ns <= w.last_ns)
), sent AS (
    SELECT job_id, min(start_ns) AS enqueue_ns, min(queue) AS queue, min(bulk_id) AS bulk_id
    FROM spans s
    WHERE kind = 'PRODUCER' AND job_id IS NOT NULL AND s.start_ns BETWEEN list_min($firsts) AND list_max($lasts)
      AND EXISTS (SELECT 1 FROM windows w WHERE s.start_ns BETWEEN w.first_ns AND w.last_ns)
    GROUP BY job_id
), told AS (
    SELECT span_id, min(job_id) AS job_id, min(bulk_id) AS bulk_id, min(time_ns) AS start_ns, max(time_ns) AS seen_ns,
           min(worker) AS worker,
           coalesce(min(host_name), '') AS host_name, min(service_instance_id) AS instance
    FROM logs l
    WHERE event_name IN ('bulk.job.started', 'bulk.job.heartbeat') AND job_id IS NOT NULL AND span_id IS NOT NULL
      AND l.time_ns BETWEEN list_min($firsts) AND list_max($lasts)
      AND EXISTS (SELECT 1 FROM windows w WHERE l.time_ns BETWEEN w.first_ns AND w.last_ns)
    GROUP BY span_id
), killed AS (
    -- A parent has told of their ends.
    SELECT job_id, worker, start_ns - 2000000000 AS first_ns, end_ns + 2000000000 AS last_ns
    FROM spans
    WHERE kind = 'CONSUMER' AND service_instance_id IS NULL AND pid IS NOT NULL
      AND end_ns >= list_min($firsts) - 2000000000 AND start_ns <= list_max($lasts) + 2000000000
), begun AS (
    SELECT t.*, s.enqueue_ns, s.queue
    FROM told t LEFT JOIN sent s ON s.job_id = t.job_id
         ANTI JOIN killed k ON k.job_id = t.job_id AND k.worker = t.worker
              AND k.first_ns <= t.start_ns AND k.last_ns >= t.start_ns
    WHERE NOT EXISTS (
        SELECT 1 FROM spans c
        WHERE c.span_id = t.span_id AND c.kind = 'CONSUMER'
          AND c.end_ns >= list_min($firsts) - 3600000000000 AND c.start_ns <= list_max($lasts) + 3600000000000)
)
SELECT d.job_id, d.attempt, d.span_id, d.trace_id,
       CASE WHEN coalesce(d.attempt, 1) = 1 THEN s.enqueue_ns END AS put_ns,
       -- The PRODUCER's start is the enqueue of a first attempt; a retry was put later, so its wait tells.
       CASE WHEN coalesce(d.attempt, 1) = 1 AND s.enqueue_ns IS NOT NULL THEN s.enqueue_ns
            ELSE d.start_ns - CAST(round((d.wait + coalesce(d.delay, 0)) * 1e9) AS BIGINT) END AS enqueue_ns,
       d.start_ns, d.end_ns, d.end_ns AS seen_ns, d.wait, d.delay,
       coalesce(d.outcome, '') = 'retry' AS retried,
       d.status IS DISTINCT FROM 'ERROR' AND d.failure_domain IS NULL AND coalesce(d.outcome, 'ok') = 'ok' AS ok,
       d.failure_domain, d.error_type,
       d.worker,
       coalesce(d.host_name, '') AS host_name, coalesce(s.queue, d.queue) AS queue, d.bulk_id,
       d.service_instance_id AS instance
FROM done d LEFT JOIN sent s ON s.job_id = d.job_id
UNION ALL
SELECT job_id, NULL, span_id, NULL, enqueue_ns, enqueue_ns, start_ns, NULL, seen_ns, NULL, NULL, NULL, NULL, NULL, NULL,
       worker, host_name, queue, bulk_id, instance
FROM begun
UNION ALL
SELECT job_id, NULL, NULL, NULL, enqueue_ns, enqueue_ns, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, queue,
       bulk_id, NULL
FROM sent s
-- A job may be taken long after the windows, but not before it was sent, give or take two hosts' clocks.
WHERE NOT EXISTS (
    SELECT 1 FROM spans c
    WHERE c.job_id = s.job_id AND c.kind = 'CONSUMER' AND c.end_ns >= list_min($firsts) - 3600000000000)
  AND NOT EXISTS (SELECT 1 FROM told t WHERE t.job_id = s.job_id)
ORDER BY enqueue_ns, start_ns, job_id
