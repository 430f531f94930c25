-- Processes that worked on jobs from $first to $last; how near each came to its limit of memory counts from $begin on.
SELECT worker, instance, host_name, first_ns, last_ns, memory_utilization, cpus, cpu_set, container_id
FROM rules.workers([$first], [$last], $first, $last, $begin)
ORDER BY worker, host_name, instance, resource_id
