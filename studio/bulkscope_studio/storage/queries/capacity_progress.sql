-- How many jobs of a bulk were sent, and how many have ended for good.
SELECT count(DISTINCT job_id) FILTER (kind = 'PRODUCER') AS sent,
       count(DISTINCT job_id) FILTER (kind = 'CONSUMER' AND coalesce(outcome, '') <> 'retry') AS ended
FROM spans WHERE bulk_id = $bulk AND start_ns BETWEEN $bulk_first AND $bulk_last
