-- One row a job of a bulk (`rules.jobs`), in the order of their enqueue.
SELECT * EXCLUDE (bulk) FROM rules.jobs([$bulk], $bulk_first, $bulk_last)
ORDER BY enqueued_ns, started_ns, id
