-- The hosts' samples in the window, one row a host and second: CPU and memory in use (shares), memory in all (bytes),
-- shares of the time in which work stalled (PSI), major faults so far.
SELECT host_name, time_ns // 1000000000 * 1000000000 AS time_ns,
       sum(value) FILTER (name = 'system.cpu.utilization'
           AND coalesce(json_extract_string(attributes, '$.state'), 'user') NOT IN ('idle', 'iowait', 'wait')) AS cpu,
       sum(value) FILTER (name = 'system.memory.utilization'
           AND coalesce(json_extract_string(attributes, '$.state'), 'used') = 'used') AS memory,
       sum(value) FILTER (name = 'system.memory.usage') AS memory_total,
       sum(value) FILTER (name = 'system.memory.usage' AND json_extract_string(attributes, '$.state') = 'used') AS memory_used,
       max(value) FILTER (name = 'bulk.system.pressure' AND json_extract_string(attributes, '$.resource') = 'cpu'
           AND json_extract_string(attributes, '$.level') = 'some') AS cpu_pressure,
       max(value) FILTER (name = 'bulk.system.pressure' AND json_extract_string(attributes, '$.resource') = 'memory'
           AND json_extract_string(attributes, '$.level') = 'some') AS memory_pressure,
       max(value) FILTER (name = 'system.paging.faults'
           AND json_extract_string(attributes, '$.type') = 'major') AS major_faults
FROM points
WHERE name IN ('system.cpu.utilization', 'system.memory.utilization', 'system.memory.usage', 'bulk.system.pressure',
               'system.paging.faults')
  AND time_ns BETWEEN $first AND $last
GROUP BY ALL
ORDER BY host_name, time_ns
