-- For the page and for the report: attempts of a bulk's jobs that were lost with their workers, by the account of the
-- worker's parent process (told), or because they began, have not ended, and nothing has been heard since $silent_ns.
-- Of one whose process began another job since, the end was not recorded (without_end): it was not lost.
-- One row each, with what the last heartbeat said. The kernel killed the worker for its memory when its parent says so,
-- or when its counter of such kills stands higher within a minute, by the account of a worker of the same service on the
-- same host (their memory cgroup's counter) or by the host's own. A container that is killed whole takes its counter
-- along: near its limit at the last (thresholds.MEMORY_NEAR of it, or it grew so fast that the next second would have filled it) it was
-- likely killed for memory, unless its process had been as near before the job began, and had lived on. One that grew by
-- 20 MiB a second under 160 MiB said 0.90 at the last. Else it is not known why the worker went. Of one that was lost
-- before its first inference the model is likely that of its process' last one, or the only one of the bulk.
WITH ended AS (
    SELECT * FROM rules.ended_in([$bulk], $bulk_first, $bulk_last)
), begun AS (
    -- Of those that did not end their own span: to parse the attributes of all would take longer than the rest.
    SELECT h.trace_id, h.span_id, min(h.job_id) AS job_id, min(time_ns) AS start_ns, max(time_ns) AS seen_ns,
           min(h.worker) AS worker, min(h.host_name) AS host_name, min(h.service_name) AS service_name,
           min(h.instance) AS instance, min(h.resource_id) AS resource_id,
           max(TRY_CAST(json_extract(attributes, '$."bulk.job.attempt"') AS INTEGER)) AS attempt,
           -- Not straight to DOUBLE: that takes "nan" for a number.
           CAST(max(TRY_CAST(json_extract(attributes, '$."bulk.job.elapsed"') AS DECIMAL(18, 9))) AS DOUBLE) AS elapsed,
           arg_max(TRY_CAST(json_extract(attributes, '$."process.memory.usage"') AS BIGINT), time_ns) AS memory,
           -- The last, and the one before.
           CAST(arg_max(TRY_CAST(json_extract(attributes, '$."bulk.worker.memory.utilization"') AS DECIMAL(18, 9)), time_ns, 2) AS DOUBLE[]) AS held,
           arg_max(TRY_CAST(json_extract(attributes, '$."process.memory.usage"') AS BIGINT), time_ns, 2) AS resident,
           arg_max(json_extract_string(attributes, '$."gen_ai.request.model"'), time_ns) AS model,
           arg_max(TRY_CAST(json_extract(attributes, '$."bulk.worker.oom_kills"') AS BIGINT), time_ns) AS kills
    FROM (
        -- A record that names no trace is of the attempt whose others do.
        SELECT h.* REPLACE (coalesce(h.trace_id, max(h.trace_id) OVER (PARTITION BY h.span_id)) AS trace_id)
        FROM rules.heartbeats h ANTI JOIN ended e ON rules.is_of(h.trace_id, h.span_id, e.trace_id, e.span_id)
        WHERE bulk_id = $bulk AND time_ns BETWEEN $bulk_first AND $bulk_last AND job_id IS NOT NULL AND span_id IS NOT NULL
    ) h
    GROUP BY h.trace_id, h.span_id
), killed AS (
    SELECT * FROM ended WHERE told
), later AS (
    -- When a process last began a job, of whichever bulk.
    SELECT worker, instance, max(start_ns) AS start_ns FROM (
        SELECT worker, instance, start_ns FROM rules.ended_attempts
        WHERE start_ns BETWEEN $bulk_first AND $bulk_last + 3600000000000
        UNION ALL
        SELECT worker, instance, min(time_ns) FROM rules.heartbeats
        WHERE time_ns BETWEEN $bulk_first AND $bulk_last + 3600000000000 GROUP BY worker, instance, trace_id, span_id
    ) GROUP BY worker, instance
), silent AS (
    SELECT b.*, coalesce(l.start_ns > b.seen_ns, false) AS without_end
    FROM begun b ANTI JOIN killed k
         ON k.job_id = b.job_id AND k.worker = b.worker AND rules.ends(k.start_ns, k.end_ns, b.start_ns)
         LEFT JOIN later l ON l.worker = b.worker AND l.instance IS NOT DISTINCT FROM b.instance
    WHERE b.seen_ns < $silent_ns
), limits AS (
    SELECT resource_id, TRY_CAST(json_extract(attributes, '$."bulk.worker.memory.limit"') AS BIGINT) AS memory_limit
    FROM resources WHERE resource_id IN (SELECT resource_id FROM begun)
), lost AS (
    -- Of its memory cgroup, which others may be in too; of the process where the group's is not told.
    SELECT s.*, i.memory_limit, coalesce(s.held[1], s.resident[1] / nullif(i.memory_limit, 0)) AS share,
           coalesce(s.held[2], s.resident[2] / nullif(i.memory_limit, 0)) AS share_before,
           -- The names of workers end in their process ids: what is before is where the counter is shared.
           regexp_replace(s.worker, ':[0-9]+(#[0-9]+)?$', '') AS place
    FROM silent s LEFT JOIN limits i USING (resource_id)
), before AS (
    SELECT g.instance, g.time_ns,
           coalesce(CAST(TRY_CAST(json_extract(g.attributes, '$."bulk.worker.memory.utilization"') AS DECIMAL(18, 9)) AS DOUBLE),
                    TRY_CAST(json_extract(g.attributes, '$."process.memory.usage"') AS BIGINT) / nullif(i.memory_limit, 0)) AS share
    FROM rules.heartbeats g LEFT JOIN limits i USING (resource_id)
    WHERE g.bulk_id = $bulk AND g.time_ns BETWEEN $bulk_first AND $bulk_last AND g.instance IN (SELECT instance FROM lost)
), used AS (
    SELECT service_instance_id AS instance, start_ns, model
    FROM spans WHERE bulk_id = $bulk AND start_ns BETWEEN $bulk_first AND $bulk_last AND rules.is_inference(kind, model)
), models AS (
    SELECT instance, arg_max(model, start_ns) AS model FROM used GROUP BY instance
), judged AS (
    SELECT l.*,
       EXISTS (
           SELECT 1 FROM rules.heartbeats g
           WHERE g.host_name = l.host_name
             AND regexp_replace(g.worker, ':[0-9]+(#[0-9]+)?$', '') = l.place AND g.service_name IS NOT DISTINCT FROM l.service_name
             AND g.time_ns BETWEEN l.seen_ns + 1 AND l.seen_ns + 60000000000
             AND g.time_ns BETWEEN $bulk_first AND $bulk_last + 60000000000
             AND TRY_CAST(json_extract(g.attributes, '$."bulk.worker.oom_kills"') AS BIGINT) > l.kills
       ) OR coalesce((
           SELECT max(p.value) FROM points p
           WHERE p.name = 'bulk.system.oom_kills' AND p.host_name = l.host_name
             AND p.time_ns BETWEEN l.seen_ns AND l.seen_ns + 10000000000
             AND p.time_ns BETWEEN $bulk_first AND $bulk_last + 10000000000
       ) > (
           SELECT arg_max(p.value, p.time_ns) FROM points p
           WHERE p.name = 'bulk.system.oom_kills' AND p.host_name = l.host_name AND p.time_ns <= l.seen_ns
             AND p.time_ns BETWEEN $bulk_first - 86400000000000 AND $bulk_last
       ), false) AS counted,
       coalesce(l.share >= 0.9 OR 2 * l.share - l.share_before >= 1, false) AND NOT EXISTS (
           SELECT 1 FROM before b WHERE b.instance = l.instance AND b.time_ns < l.start_ns AND b.share >= least(l.share, 0.9)
       ) AS near
    FROM lost l
), found AS (
    SELECT trace_id, span_id, job_id, coalesce(attempt, 1) AS attempt, start_ns, seen_ns, worker, instance, model, elapsed,
           memory, memory_limit, share, CASE WHEN counted OR near THEN 'resource' ELSE 'infra' END AS domain,
           near AND NOT counted AS likely, false AS told, without_end
    FROM judged
    UNION ALL
    SELECT k.trace_id, k.span_id, k.job_id, coalesce(k.attempt, 1), k.start_ns, k.end_ns, k.worker, b.instance, b.model,
           (k.end_ns - k.start_ns) / 1e9, b.memory, i.memory_limit,
           coalesce(b.held[1], b.memory / nullif(i.memory_limit, 0)), k.failure_domain, false, true, false
    FROM killed k
         LEFT JOIN begun b ON k.job_id = b.job_id AND k.worker = b.worker AND rules.ends(k.start_ns, k.end_ns, b.start_ns)
         LEFT JOIN limits i ON i.resource_id = b.resource_id
    WHERE contains(k.error_type, 'WorkerLost')
), named AS (
    SELECT f.* EXCLUDE (instance, model), f.model AS said, m.model AS of_process,
           (SELECT CASE WHEN count(DISTINCT model) = 1 THEN min(model) END FROM used) AS of_bulk
    FROM found f LEFT JOIN models m ON m.instance = f.instance
)
SELECT * EXCLUDE (said, of_process, of_bulk), coalesce(said, of_process, of_bulk) AS model,
       said IS NULL AND coalesce(of_process, of_bulk) IS NOT NULL AS model_likely
FROM named ORDER BY start_ns, job_id
