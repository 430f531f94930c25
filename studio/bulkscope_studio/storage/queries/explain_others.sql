-- What the workers did for other bulks, and for no bulk, from $first to $last: ended attempts, and begun ones that
-- have not ended. Columns as in report_attempts.
WITH done AS (
    SELECT span_id, job_id, attempt, start_ns, end_ns, wait, delay, queue,
           worker, service_instance_id AS instance, coalesce(host_name, '') AS host_name
    FROM spans
    WHERE kind = 'CONSUMER' AND bulk_id IS DISTINCT FROM $bulk AND end_ns >= $first AND start_ns <= $last
), begun AS (
    SELECT span_id, min(job_id) AS job_id, min(time_ns) AS start_ns, max(time_ns) AS seen_ns,
           min(worker) AS worker, min(service_instance_id) AS instance, coalesce(min(host_name), '') AS host_name
    FROM logs
    WHERE event_name IN ('bulk.job.started', 'bulk.job.heartbeat') AND bulk_id IS DISTINCT FROM $bulk
      AND span_id IS NOT NULL AND time_ns BETWEEN $first AND $last
    GROUP BY span_id
), killed AS (
    -- A parent has told of their ends.
    SELECT job_id, worker, start_ns - 2000000000 AS first_ns, end_ns + 2000000000 AS last_ns
    FROM spans
    WHERE kind = 'CONSUMER' AND service_instance_id IS NULL AND pid IS NOT NULL
      AND end_ns >= $first - 2000000000 AND start_ns <= $last + 2000000000
)
SELECT job_id, attempt, span_id, CAST(NULL AS VARCHAR) AS trace_id,
       start_ns - CAST(round((wait + coalesce(delay, 0)) * 1e9) AS BIGINT) AS enqueue_ns, start_ns, end_ns,
       end_ns AS seen_ns, wait, delay, CAST(NULL AS BOOLEAN) AS retried, CAST(NULL AS BOOLEAN) AS ok,
       CAST(NULL AS VARCHAR) AS failure_domain, CAST(NULL AS VARCHAR) AS error_type, worker, host_name, queue,
       CAST(NULL AS BIGINT) AS put_ns, instance
FROM done
UNION ALL
SELECT b.job_id, NULL, span_id, NULL, NULL, start_ns, NULL, seen_ns, NULL, NULL, NULL, NULL, NULL, NULL, worker, b.host_name,
       NULL, NULL, instance
FROM begun b ANTI JOIN killed k ON k.job_id = b.job_id AND k.worker = b.worker
             AND k.first_ns <= b.start_ns AND k.last_ns >= b.start_ns
-- What a process logged and its span are told an hour apart at most.
WHERE NOT EXISTS (
    SELECT 1 FROM spans s
    WHERE s.span_id = b.span_id AND s.kind = 'CONSUMER'
      AND s.end_ns >= $first - 3600000000000 AND s.start_ns <= $last + 3600000000000)
ORDER BY start_ns, span_id
