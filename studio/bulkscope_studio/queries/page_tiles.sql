-- Totals of the window.
SELECT count(*) FILTER (kind = 'SERVER') AS requests,
       count(*) FILTER (kind = 'SERVER' AND (outcome = 'overload' OR (outcome IS NULL AND http_status IN (429, 503)))) AS overload,
       count(*) FILTER (kind = 'SERVER' AND (outcome = 'internal_error' OR (outcome IS NULL
           AND (http_status >= 500 OR status = 'ERROR') AND http_status IS DISTINCT FROM 503))) AS internal,
       count(*) FILTER (kind = 'CONSUMER') AS attempts,
       count(*) FILTER (kind = 'CONSUMER' AND status = 'ERROR') AS failed,
       sum(output_tokens) FILTER (model IS NOT NULL) AS tokens
FROM spans WHERE end_ns BETWEEN $from_ns AND $to_ns
