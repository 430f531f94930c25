-- For the page and for the report: attempts of a bulk's jobs that began and have not ended, and of which nothing
-- has been heard since $silent_ns.
-- One row each, with what the last heartbeat said. The kernel killed the worker for its memory when its counter
-- of such kills stands higher within a minute, by the account of a worker of the same service on the same host (their
-- memory cgroup's counter) or by the host's own; else it is not known why the worker went.
WITH begun AS (
    SELECT span_id, min(trace_id) AS trace_id, min(job_id) AS job_id, min(time_ns) AS start_ns, max(time_ns) AS seen_ns,
           coalesce(min(host_name) || ':' || min(pid), min(service_instance_id), min(service_name), 'worker') AS worker,
           min(host_name) AS host_name, min(service_name) AS service_name,
           max(CAST(json_extract(attributes, '$."bulk.job.attempt"') AS BIGINT)) AS attempt,
           max(CAST(json_extract(attributes, '$."bulk.job.elapsed"') AS DOUBLE)) AS elapsed,
           arg_max(CAST(json_extract(attributes, '$."process.memory.usage"') AS BIGINT), time_ns) AS memory,
           arg_max(json_extract_string(attributes, '$."gen_ai.request.model"'), time_ns) AS model,
           arg_max(CAST(json_extract(attributes, '$."bulk.worker.oom_kills"') AS BIGINT), time_ns) AS kills
    FROM logs
    WHERE bulk_id = $bulk AND event_name IN ('bulk.job.started', 'bulk.job.heartbeat') AND job_id IS NOT NULL
    GROUP BY span_id
), lost AS (
    SELECT b.* FROM begun b
    WHERE b.seen_ns < $silent_ns
      AND NOT EXISTS (SELECT 1 FROM spans s WHERE s.bulk_id = $bulk AND s.kind = 'CONSUMER' AND s.span_id = b.span_id)
)
SELECT l.trace_id, l.span_id, l.job_id, coalesce(l.attempt, 1) AS attempt, l.start_ns, l.seen_ns, l.worker, l.model,
       l.elapsed, l.memory,
       CASE WHEN EXISTS (
           SELECT 1 FROM logs g
           WHERE g.event_name IN ('bulk.job.started', 'bulk.job.heartbeat') AND g.host_name = l.host_name
             AND g.service_name IS NOT DISTINCT FROM l.service_name
             AND g.time_ns BETWEEN l.seen_ns + 1 AND l.seen_ns + 60000000000
             AND CAST(json_extract(g.attributes, '$."bulk.worker.oom_kills"') AS BIGINT) > l.kills
       ) OR (
           SELECT max(p.value) FROM points p
           WHERE p.name = 'bulk.system.oom_kills' AND p.host_name = l.host_name
             AND p.time_ns BETWEEN l.seen_ns AND l.seen_ns + 10000000000
       ) > (
           SELECT arg_max(p.value, p.time_ns) FROM points p
           WHERE p.name = 'bulk.system.oom_kills' AND p.host_name = l.host_name AND p.time_ns <= l.seen_ns
       ) THEN 'resource' ELSE 'infra' END AS domain
FROM lost l ORDER BY l.start_ns, l.job_id
