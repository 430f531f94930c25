-- Of the numbers of one bulk those that are of its attempts' waits, one row, and where its records are; rows = 0 when
-- nothing is known of it. Requests that only ask for progress are left out of the time axis.
WITH s AS (
    SELECT * FROM spans WHERE bulk_id = $bulk_id AND start_ns BETWEEN $bulk_first AND $bulk_last
        AND (kind <> 'SERVER' OR rules.request_sends(http_method, bulk_size))
)
SELECT count(*) AS rows, min(start_ns) AS from_ns, max(end_ns) AS to_ns, arg_min(trace_id, start_ns) AS trace_id,
       avg(wait) FILTER (kind = 'CONSUMER' AND wait >= 0) AS wait_mean,
       quantile_cont(wait, 0.5) FILTER (kind = 'CONSUMER' AND wait >= 0) AS wait_p50,
       quantile_cont(wait, 0.95) FILTER (kind = 'CONSUMER' AND wait >= 0) AS wait_p95,
       avg(rules.wait_ratio(wait, delay, start_ns, end_ns)) FILTER (kind = 'CONSUMER') AS wait_ratio
FROM s
