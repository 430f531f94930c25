-- One row per attempt of a bulk's jobs: finished ones (CONSUMER spans), begun ones that have not ended (a
-- started or heartbeat log without its span) and sent ones that nobody has taken (PRODUCER spans alone).
-- What a parent tells of a killed process has that process' pid, and no instance: its span ends what the process began,
-- up to 2 s before or after it by their accounts.
WITH sent AS (
    SELECT job_id, min(start_ns) AS enqueue_ns, min(queue) AS queue
    FROM spans WHERE bulk_id = $bulk AND start_ns BETWEEN $bulk_first AND $bulk_last AND kind = 'PRODUCER' AND job_id IS NOT NULL GROUP BY job_id
), done AS (
    SELECT trace_id, span_id, job_id, attempt, start_ns, end_ns, wait, delay, wait_ratio, status, outcome, failure_domain,
           error_type, service_instance_id, host_name, pid, worker, queue
    FROM spans WHERE bulk_id = $bulk AND start_ns BETWEEN $bulk_first AND $bulk_last AND kind = 'CONSUMER'
), told AS (
    SELECT span_id, job_id, trace_id, time_ns, attributes, service_instance_id, host_name, worker
    FROM logs
    WHERE bulk_id = $bulk AND time_ns BETWEEN $bulk_first AND $bulk_last
      AND event_name IN ('bulk.job.started', 'bulk.job.heartbeat') AND job_id IS NOT NULL AND span_id IS NOT NULL
), open AS (
    -- Of the few that have not ended: to parse the attributes of all would take longer than the rest.
    SELECT t.span_id, min(t.trace_id) AS trace_id, min(t.job_id) AS job_id, min(time_ns) AS start_ns,
           max(time_ns) AS seen_ns,
           max(TRY_CAST(json_extract(t.attributes, '$."bulk.job.attempt"') AS INTEGER)) AS attempt,
           min(t.service_instance_id) AS service_instance_id, min(t.host_name) AS host_name, min(t.worker) AS worker
    FROM told t ANTI JOIN done d ON d.span_id = t.span_id GROUP BY t.span_id
), killed AS (
    SELECT job_id, worker, start_ns - 2000000000 AS first_ns, end_ns + 2000000000 AS last_ns
    FROM done WHERE service_instance_id IS NULL AND pid IS NOT NULL
)
SELECT d.job_id, d.attempt, d.span_id, d.trace_id,
       -- The PRODUCER's start is the enqueue of a first attempt; a retry was put later, so its wait tells.
       CASE WHEN coalesce(d.attempt, 1) = 1 AND s.enqueue_ns IS NOT NULL THEN s.enqueue_ns
            ELSE d.start_ns - CAST(round((d.wait + coalesce(d.delay, 0)) * 1e9) AS BIGINT) END AS enqueue_ns,
       d.start_ns, d.end_ns, d.end_ns AS seen_ns,
       coalesce(d.wait, CASE WHEN coalesce(d.attempt, 1) = 1
                THEN (d.start_ns - s.enqueue_ns) / 1e9 - coalesce(d.delay, 0) END) AS wait,
       d.delay, coalesce(d.outcome, '') = 'retry' AS retried,
       d.status IS DISTINCT FROM 'ERROR' AND d.failure_domain IS NULL
                AND coalesce(d.outcome, 'ok') = 'ok' AS ok,
       d.failure_domain, d.error_type, d.worker,
       coalesce(d.host_name, '') AS host_name, coalesce(s.queue, d.queue) AS queue,
       CASE WHEN coalesce(d.attempt, 1) = 1 THEN s.enqueue_ns END AS put_ns,
       d.service_instance_id AS instance
FROM done d LEFT JOIN sent s ON s.job_id = d.job_id
UNION ALL
SELECT o.job_id, o.attempt, o.span_id, o.trace_id, s.enqueue_ns, o.start_ns, NULL, o.seen_ns, NULL, NULL, NULL, NULL, NULL, NULL,
       o.worker,
       coalesce(o.host_name, ''), s.queue, s.enqueue_ns, o.service_instance_id
FROM open o LEFT JOIN sent s ON s.job_id = o.job_id
     ANTI JOIN killed k ON k.job_id = o.job_id AND k.worker = o.worker
          AND k.first_ns <= o.start_ns AND k.last_ns >= o.start_ns
UNION ALL
SELECT s.job_id, NULL, NULL, NULL, s.enqueue_ns, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, s.queue, s.enqueue_ns, NULL
FROM sent s
WHERE NOT EXISTS (SELECT 1 FROM done d WHERE d.job_id = s.job_id)
  AND NOT EXISTS (SELECT 1 FROM told t WHERE t.job_id = s.job_id)
ORDER BY enqueue_ns, start_ns, job_id
