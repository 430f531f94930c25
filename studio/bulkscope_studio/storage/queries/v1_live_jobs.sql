-- Attempts of all bulks by bin ($bins from $from_ns to $to_ns; -1 is before): those that began, that ended (by what became of
-- them) or of which nothing was heard any more since $silent_ns, and waits and work of those that ended. Filters are off when NULL.
WITH own AS (
    SELECT start_ns, end_ns, coalesce(end_ns, CASE WHEN seen_ns < $silent_ns THEN seen_ns END) AS gone_ns, state,
           rules.credible_wait(wait) AS wait, (end_ns - start_ns) / 1e9 AS work
    FROM rules.begun_attempts([], $from_ns, $to_ns, every_job := true)
    WHERE ($host IS NULL OR host_name = $host)
      AND ($service IS NULL OR instance IN (SELECT json_extract_string(attributes, '$."service.instance.id"') FROM resources
          WHERE json_extract_string(attributes, '$."service.name"') = $service))
), moments AS (
    SELECT start_ns AS at_ns, true AS begun, false AS gone, NULL AS state, NULL AS wait, NULL AS work FROM own
    UNION ALL
    SELECT gone_ns, false, true, state, CASE WHEN wait >= 0 THEN wait END, work FROM own WHERE gone_ns IS NOT NULL
)
SELECT greatest(-1, floor((at_ns - $from_ns) / ($to_ns - $from_ns) * $bins))::INTEGER AS bin, count(*) FILTER (begun) AS begun,
       count(*) FILTER (gone) AS gone, count(*) FILTER (state = 'done') AS done, count(*) FILTER (state = 'failed') AS failed,
       count(*) FILTER (state = 'retried') AS retried, quantile_cont(wait, [0.5, 0.95]) AS wait,
       quantile_cont(work, [0.5, 0.95]) AS work
FROM moments WHERE at_ns <= $to_ns GROUP BY bin ORDER BY bin
