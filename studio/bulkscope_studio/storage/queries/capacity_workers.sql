-- Processes that worked on jobs in one of the windows (lists $firsts and $lasts, ns). Of one that said something within an
-- hour before and an hour after them it is known that it lived in them.
SELECT worker, instance, host_name, first_ns, last_ns, memory_utilization, cpus, cpu_set, container_id
FROM rules.workers($firsts, $lasts, list_min($firsts) - 3600000000000, list_max($lasts) + 3600000000000, 0)
ORDER BY worker, host_name
