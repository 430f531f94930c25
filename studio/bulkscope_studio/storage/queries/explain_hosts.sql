-- The hosts' samples in the window, one row a host and $bin_ns: CPU and memory in use (shares), memory in all (bytes),
-- shares of the time in which work stalled (PSI), major faults so far. Attributes are searched as text, which is ten
-- times as fast as parsing them: they are stored with sorted keys and without spaces.
WITH ticks AS (
    SELECT host_name, time_ns,
           -- A sender that reports each core apart has as many series of a state as cores.
           sum(value) FILTER (name = 'system.cpu.utilization' AND NOT regexp_matches(coalesce(attributes, ''), '"state":"(idle|iowait|wait)"'))
             / greatest(1, count(DISTINCT regexp_extract(attributes, '"cpu":"([^"]*)"', 1)) FILTER (name = 'system.cpu.utilization')) AS cpu,
           sum(value) FILTER (name = 'system.memory.utilization' AND (contains(attributes, '"state":"used"') OR NOT contains(coalesce(attributes, ''), '"state"'))) AS memory,
           -- What a Collector says of slabs is part of these four.
           sum(value) FILTER (name = 'system.memory.usage' AND regexp_matches(attributes, '"state":"(free|used|buffered|cached)"')) AS memory_total,
           sum(value) FILTER (name = 'system.memory.usage' AND contains(attributes, '"state":"used"')) AS memory_used,
           max(value) FILTER (name = 'bulk.system.pressure' AND contains(attributes, '"level":"some"') AND contains(attributes, '"resource":"cpu"')) AS cpu_pressure,
           max(value) FILTER (name = 'bulk.system.pressure' AND contains(attributes, '"level":"some"') AND contains(attributes, '"resource":"memory"')) AS memory_pressure,
           max(value) FILTER (name = 'system.paging.faults' AND contains(attributes, '"type":"major"')) AS major_faults
    FROM points
    WHERE name IN ('system.cpu.utilization', 'system.memory.utilization', 'system.memory.usage', 'bulk.system.pressure',
                   'system.paging.faults')
      AND time_ns BETWEEN $first AND $last
    GROUP BY host_name, time_ns
)
-- Rounded: threads add in any order, and the same data must always give the same text.
SELECT host_name, (time_ns - $first) // $bin_ns * $bin_ns + $first AS time_ns, round(avg(cpu), 9) AS cpu, max(memory) AS memory,
       max(memory_total) AS memory_total, max(memory_used) AS memory_used, round(avg(cpu_pressure), 9) AS cpu_pressure,
       round(avg(memory_pressure), 9) AS memory_pressure, max(major_faults) AS major_faults
FROM ticks GROUP BY ALL ORDER BY host_name, time_ns
