-- Requests by the bin in which they ended, and jobs by that in which they were sent. Requests that went well and could send
-- no job are apart (reads): clients that ask for progress and health checks would drown the load. Bins and filters as in
-- v1_live_jobs.sql.
WITH own AS (
    SELECT CASE WHEN kind = 'SERVER' THEN end_ns ELSE start_ns END AS at_ns, kind, (end_ns - start_ns) / 1e9 AS seconds,
           rules.request_outcome(outcome, http_status, status) AS outcome,
           rules.request_outcome(outcome, http_status, status) = 'ok' AND NOT rules.request_sends(http_method, bulk_size) AS read
    FROM spans
    WHERE end_ns >= $from_ns AND start_ns <= $to_ns
      AND (kind = 'SERVER' OR (kind = 'PRODUCER' AND job_id IS NOT NULL AND rules.send_state(status, outcome) = 'sent'))
      AND ($host IS NULL OR host_name = $host) AND ($service IS NULL OR service_name = $service)
)
SELECT floor((at_ns - $from_ns) / ($to_ns - $from_ns) * $bins)::INTEGER AS bin, count(*) FILTER (kind = 'PRODUCER') AS arrived,
       count(*) FILTER (kind = 'SERVER' AND read) AS reads, count(*) FILTER (kind = 'SERVER' AND NOT read) AS requests,
       count(*) FILTER (kind = 'SERVER' AND outcome = 'client_error') AS client_error,
       count(*) FILTER (kind = 'SERVER' AND outcome = 'overload') AS overload,
       count(*) FILTER (kind = 'SERVER' AND outcome = 'internal_error') AS internal_error,
       quantile_cont(seconds, [0.5, 0.95]) FILTER (kind = 'SERVER' AND NOT read) AS latency
FROM own WHERE at_ns BETWEEN $from_ns AND $to_ns GROUP BY bin ORDER BY bin
