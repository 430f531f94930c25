-- Processes that have worked on jobs in the window: what each may use, from when to when it is known to have lived,
-- and how near its cgroup came to its limits. Of one that was killed at its first job the parent's limits are told.
WITH each AS (
    SELECT instance AS service_instance_id, min(resource_id) AS resource_id, worker, host_name
    FROM rules.ended_attempts WHERE end_ns >= $first AND start_ns <= $last
    GROUP BY ALL
), worked AS (
    -- What a parent told of a killed process has no instance: it makes no second one of it.
    SELECT * FROM each
    QUALIFY service_instance_id IS NOT NULL OR count(service_instance_id) OVER (PARTITION BY worker, host_name) = 0
), said AS (
    SELECT p.service_instance_id, min(p.time_ns) AS first_ns, max(p.time_ns) AS last_ns,
           max(p.value) FILTER (p.name = 'bulk.worker.memory.utilization' AND p.time_ns >= $begin) AS memory_utilization
    FROM points p
    WHERE p.name IN ('process.memory.usage', 'bulk.worker.memory.utilization')
      AND p.time_ns BETWEEN $first AND $last AND p.service_instance_id IN (SELECT service_instance_id FROM worked)
    GROUP BY p.service_instance_id
)
SELECT w.worker, w.service_instance_id AS instance, w.host_name, s.first_ns, s.last_ns, s.memory_utilization,
       rules.credible_cpus(TRY_CAST(json_extract(r.attributes, '$."bulk.worker.cpus"') AS DOUBLE)) AS cpus,
       json_extract_string(r.attributes, '$."bulk.worker.cpu.set"') AS cpu_set,
       json_extract_string(r.attributes, '$."container.id"') AS container_id
FROM worked w LEFT JOIN said s USING (service_instance_id) LEFT JOIN resources r ON r.resource_id = w.resource_id
ORDER BY w.worker, w.host_name, w.service_instance_id, w.resource_id
