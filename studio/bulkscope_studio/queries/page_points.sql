-- Attributes are searched as text, which is ten times as fast as parsing them. Gauges by bin: the mean of each series in the bin, then added up over queues and workers, averaged over hosts.
WITH wanted AS (
    SELECT time_ns // $bin_ns AS bin, value, resource_id, attributes,
           CASE name WHEN 'bulk.queue.depth' THEN 'depth' WHEN 'bulk.queue.oldest_age' THEN 'age'
                     WHEN 'bulk.worker.busy' THEN 'busy' WHEN 'system.cpu.utilization' THEN 'cpu'
                     WHEN 'system.memory.utilization' THEN 'ram' ELSE 'psi' END AS series
    FROM points
    WHERE time_ns BETWEEN $from_ns AND $to_ns AND (
        name IN ('bulk.queue.depth', 'bulk.queue.oldest_age', 'bulk.worker.busy')
        OR (name = 'system.cpu.utilization' AND (contains(attributes, '"state":"idle"') OR contains(attributes, '"state": "idle"')))
        OR (name = 'system.memory.utilization' AND (contains(attributes, '"state":"used"') OR contains(attributes, '"state": "used"')))
        OR (name = 'bulk.system.pressure' AND (contains(attributes, '"resource":"cpu"') OR contains(attributes, '"resource": "cpu"'))
            AND (contains(attributes, '"level":"some"') OR contains(attributes, '"level": "some"'))))
), each AS (
    -- Several processes may report the same queue: within a bin their reports are of one thing, so averaged.
    SELECT bin, series, CASE WHEN series NOT IN ('depth', 'age') THEN resource_id END AS of, attributes,
           avg(CASE WHEN series = 'cpu' THEN 1 - value ELSE value END) AS value
    FROM wanted GROUP BY ALL
)
SELECT bin * $bin_ns // 1000000 AS t_ms, series,
       CASE WHEN series IN ('depth', 'busy') THEN sum(value) WHEN series = 'age' THEN max(value) ELSE avg(value) END AS value
FROM each GROUP BY bin, series ORDER BY t_ms
