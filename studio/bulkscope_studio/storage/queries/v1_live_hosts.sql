-- Hosts that were sampled from $from_ns to $to_ns, the busiest first.
SELECT host_name AS host
FROM points
WHERE name = 'system.cpu.utilization' AND time_ns BETWEEN $from_ns AND $to_ns AND host_name IS NOT NULL
  AND ($host IS NULL OR host_name = $host)
GROUP BY host_name
ORDER BY avg(value) FILTER (contains(attributes, '"state":"idle"')) NULLS LAST, host_name
