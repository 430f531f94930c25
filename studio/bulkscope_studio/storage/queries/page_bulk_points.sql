-- Host and per-worker CPU and memory while the bulk ran: mean by bin.
WITH workers AS (
    SELECT DISTINCT worker FROM rules.ended_attempts
    WHERE bulk_id = $bulk_id AND start_ns BETWEEN $bulk_first AND $bulk_last
)
SELECT (time_ns // $bin_ns) * $bin_ns // 1000000 AS t_ms,
       CASE WHEN name LIKE 'system.%' THEN 'host' ELSE worker END AS who,
       CASE WHEN name LIKE '%cpu%' THEN 'cpu' ELSE 'ram' END AS what,
       avg(CASE WHEN name = 'system.cpu.utilization' THEN 1 - value ELSE value END) AS value
FROM points
WHERE time_ns BETWEEN $from_ns AND $to_ns AND (
    (name IN ('process.cpu.utilization', 'process.memory.usage')
        AND worker IN (SELECT worker FROM workers))
    OR (name = 'system.cpu.utilization' AND json_extract_string(attributes, '$.state') = 'idle')
    OR (name = 'system.memory.usage' AND json_extract_string(attributes, '$.state') = 'used'))
GROUP BY ALL ORDER BY t_ms
