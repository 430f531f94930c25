-- Processes that worked on jobs in one of the windows (lists $firsts and $lasts, ns), and from when to when each is
-- known to have lived. Columns as in explain_workers.
WITH windows AS (
    SELECT unnest($firsts) AS first_ns, unnest($lasts) AS last_ns
), each AS (
    SELECT instance AS service_instance_id, min(resource_id) AS resource_id, worker, host_name
    FROM rules.ended_attempts s
    WHERE s.end_ns >= list_min($firsts) AND s.start_ns <= list_max($lasts)
      AND EXISTS (SELECT 1 FROM windows w WHERE s.end_ns >= w.first_ns AND s.start_ns <= w.last_ns)
    GROUP BY ALL
), worked AS (
    -- As in explain_workers.
    SELECT * FROM each
    QUALIFY service_instance_id IS NOT NULL OR count(service_instance_id) OVER (PARTITION BY worker, host_name) = 0
), said AS (
    SELECT p.service_instance_id, min(p.time_ns) AS first_ns, max(p.time_ns) AS last_ns,
           max(p.value) FILTER (p.name = 'bulk.worker.memory.utilization') AS memory_utilization
    FROM points p
    WHERE p.name IN ('process.memory.usage', 'bulk.worker.memory.utilization')
      -- Of a process that lives before and after an hour around the windows it is known that it lived in them.
      AND p.time_ns BETWEEN list_min($firsts) - 3600000000000 AND list_max($lasts) + 3600000000000
      AND p.service_instance_id IN (SELECT service_instance_id FROM worked)
    GROUP BY p.service_instance_id
)
SELECT w.worker, w.service_instance_id AS instance, w.host_name, s.first_ns, s.last_ns, s.memory_utilization,
       rules.credible_cpus(TRY_CAST(json_extract(r.attributes, '$."bulk.worker.cpus"') AS DOUBLE)) AS cpus,
       json_extract_string(r.attributes, '$."bulk.worker.cpu.set"') AS cpu_set,
       json_extract_string(r.attributes, '$."container.id"') AS container_id
FROM worked w LEFT JOIN said s USING (service_instance_id) LEFT JOIN resources r ON r.resource_id = w.resource_id
ORDER BY w.worker, w.host_name
