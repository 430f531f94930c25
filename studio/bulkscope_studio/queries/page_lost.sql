-- For the page and for the report: attempts of a bulk's jobs that were lost with their workers, by the account of the
-- worker's parent process (told), or because they began, have not ended, and nothing has been heard since $silent_ns.
-- One row each, with what the last heartbeat said. The kernel killed the worker for its memory when its parent says so,
-- or when its counter of such kills stands higher within a minute, by the account of a worker of the same service on the
-- same host (their memory cgroup's counter) or by the host's own; else it is not known why the worker went.
WITH begun AS (
    -- Of those that did not end their own span: to parse the attributes of all would take longer than the rest.
    SELECT span_id, min(trace_id) AS trace_id, min(job_id) AS job_id, min(time_ns) AS start_ns, max(time_ns) AS seen_ns,
           min(worker) AS worker,
           min(host_name) AS host_name, min(service_name) AS service_name,
           max(TRY_CAST(json_extract(attributes, '$."bulk.job.attempt"') AS INTEGER)) AS attempt,
           -- Not straight to DOUBLE: that takes "nan" for a number.
           CAST(max(TRY_CAST(json_extract(attributes, '$."bulk.job.elapsed"') AS DECIMAL(18, 9))) AS DOUBLE) AS elapsed,
           arg_max(TRY_CAST(json_extract(attributes, '$."process.memory.usage"') AS BIGINT), time_ns) AS memory,
           arg_max(json_extract_string(attributes, '$."gen_ai.request.model"'), time_ns) AS model,
           arg_max(TRY_CAST(json_extract(attributes, '$."bulk.worker.oom_kills"') AS BIGINT), time_ns) AS kills
    FROM logs ANTI JOIN (SELECT span_id FROM spans WHERE bulk_id = $bulk AND start_ns BETWEEN $bulk_first AND $bulk_last AND kind = 'CONSUMER') ended USING (span_id)
    WHERE bulk_id = $bulk AND time_ns BETWEEN $bulk_first AND $bulk_last
      AND event_name IN ('bulk.job.started', 'bulk.job.heartbeat') AND job_id IS NOT NULL AND span_id IS NOT NULL
    GROUP BY span_id
), killed AS (
    -- What a parent tells of a killed process has that process' pid, and no instance.
    SELECT trace_id, span_id, job_id, attempt, start_ns, end_ns, worker, failure_domain, error_type
    FROM spans WHERE bulk_id = $bulk AND start_ns BETWEEN $bulk_first AND $bulk_last AND kind = 'CONSUMER' AND service_instance_id IS NULL AND pid IS NOT NULL
), lost AS (
    SELECT b.*
    FROM begun b ANTI JOIN killed k ON k.job_id = b.job_id AND k.worker = b.worker
         AND k.start_ns - 2000000000 <= b.start_ns AND k.end_ns + 2000000000 >= b.start_ns
    WHERE b.seen_ns < $silent_ns
)
SELECT l.trace_id, l.span_id, l.job_id, coalesce(l.attempt, 1) AS attempt, l.start_ns, l.seen_ns, l.worker, l.model,
       l.elapsed, l.memory,
       CASE WHEN EXISTS (
           SELECT 1 FROM logs g
           WHERE g.event_name IN ('bulk.job.started', 'bulk.job.heartbeat') AND g.host_name = l.host_name
             AND g.service_name IS NOT DISTINCT FROM l.service_name
             AND g.time_ns BETWEEN l.seen_ns + 1 AND l.seen_ns + 60000000000
             AND g.time_ns BETWEEN $bulk_first AND $bulk_last + 60000000000
             AND TRY_CAST(json_extract(g.attributes, '$."bulk.worker.oom_kills"') AS BIGINT) > l.kills
       ) OR (
           SELECT max(p.value) FROM points p
           WHERE p.name = 'bulk.system.oom_kills' AND p.host_name = l.host_name
             AND p.time_ns BETWEEN l.seen_ns AND l.seen_ns + 10000000000
             AND p.time_ns BETWEEN $bulk_first AND $bulk_last + 10000000000
       ) > (
           SELECT arg_max(p.value, p.time_ns) FROM points p
           WHERE p.name = 'bulk.system.oom_kills' AND p.host_name = l.host_name AND p.time_ns <= l.seen_ns
             AND p.time_ns BETWEEN $bulk_first - 86400000000000 AND $bulk_last
       ) THEN 'resource' ELSE 'infra' END AS domain, false AS told
FROM lost l
UNION ALL
SELECT k.trace_id, k.span_id, k.job_id, coalesce(k.attempt, 1), k.start_ns, k.end_ns, k.worker, b.model,
       (k.end_ns - k.start_ns) / 1e9, b.memory, k.failure_domain, true
FROM killed k LEFT JOIN begun b ON k.job_id = b.job_id AND k.worker = b.worker
     AND k.start_ns - 2000000000 <= b.start_ns AND k.end_ns + 2000000000 >= b.start_ns
WHERE contains(k.error_type, 'WorkerLost')
ORDER BY start_ns, job_id
