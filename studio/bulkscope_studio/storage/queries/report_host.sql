-- Host CPU and memory while the bulk ran, as shares 0..1: one value a tick, then mean and highest.
-- Idle and I/O wait are not work; memory in use is the state 'used' (a series without states counts whole).
WITH ticks AS (
    SELECT name, host_name, time_ns, sum(value) AS value
    FROM points
    WHERE name IN ('system.cpu.utilization', 'system.memory.utilization')
      AND time_ns BETWEEN $first AND $last
      AND CASE name WHEN 'system.cpu.utilization'
          THEN coalesce(json_extract_string(attributes, '$.state'), 'user') NOT IN ('idle', 'iowait', 'wait')
          ELSE coalesce(json_extract_string(attributes, '$.state'), 'used') = 'used' END
    GROUP BY name, host_name, time_ns
)
-- Rounded: threads add in any order, and the same data must always give the same text.
SELECT host_name, name, round(avg(value), 9) AS mean, round(max(value), 9) AS max, count(*) AS samples
FROM ticks GROUP BY host_name, name ORDER BY host_name, name
