-- What the store holds of no bulk: requests, jobs that were sent, attempts at jobs, inferences, and the services of them.
SELECT count(*) FILTER (kind = 'SERVER') AS requests, count(*) FILTER (kind = 'PRODUCER') AS sent,
       count(*) FILTER (kind = 'CONSUMER') AS attempts, count(*) FILTER (rules.is_inference(kind, model)) AS inferences,
       list_sort(list(DISTINCT service_name)) AS services
FROM spans WHERE bulk_id IS NULL
