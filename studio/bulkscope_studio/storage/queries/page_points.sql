-- Gauges by bin: the mean of each series in the bin, then added up over queues and workers, averaged over hosts.
-- Attributes are searched as text, which is ten times as fast as parsing them; sums by what the columns hold, named
-- afterwards, take two thirds of the time that means by names do.
WITH summed AS (
    SELECT time_ns // $bin_ns AS bin, name, resource_id, attributes, sum(value) AS total, count(value) AS n
    FROM points
    WHERE time_ns BETWEEN $from_ns AND $to_ns AND (
        name IN ('bulk.queue.depth', 'bulk.queue.oldest_age', 'bulk.worker.busy')
        OR (name = 'system.cpu.utilization' AND (contains(attributes, '"state":"idle"') OR contains(attributes, '"state": "idle"')))
        OR (name = 'system.memory.utilization' AND (contains(attributes, '"state":"used"') OR contains(attributes, '"state": "used"')))
        OR (name = 'bulk.system.pressure' AND (contains(attributes, '"resource":"cpu"') OR contains(attributes, '"resource": "cpu"'))
            AND (contains(attributes, '"level":"some"') OR contains(attributes, '"level": "some"'))))
    GROUP BY ALL
), each AS (
    -- Several processes may report the same queue: within a bin their reports are of one thing, so averaged.
    SELECT bin, CASE name WHEN 'bulk.queue.depth' THEN 'depth' WHEN 'bulk.queue.oldest_age' THEN 'age'
                          WHEN 'bulk.worker.busy' THEN 'busy' WHEN 'system.cpu.utilization' THEN 'cpu'
                          WHEN 'system.memory.utilization' THEN 'ram' ELSE 'psi' END AS series,
           CASE WHEN series NOT IN ('depth', 'age') THEN resource_id END AS of, attributes,
           sum(total) / nullif(sum(n), 0) AS mean
    FROM summed GROUP BY ALL
)
SELECT bin * $bin_ns // 1000000 AS t_ms, series,
       CASE WHEN series IN ('depth', 'busy') THEN sum(mean) WHEN series = 'age' THEN max(mean)
            WHEN series = 'cpu' THEN 1 - avg(mean) ELSE avg(mean) END AS value
FROM each GROUP BY bin, series ORDER BY t_ms
