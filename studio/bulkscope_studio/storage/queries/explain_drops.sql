-- Records that did not arrive in the window: refused here, or counted as lost by their senders. A count goes on from
-- one that was seen before the window, from nothing where it began in it, and else from the first that was seen.
SELECT signal, reason, CAST(least(sum(records), 9e18) AS BIGINT) AS records FROM (
    SELECT signal, 'refused: ' || reason AS reason, records FROM ingest
    WHERE outcome = 'refused' AND time_ns BETWEEN $first AND $last
    UNION ALL
    SELECT coalesce(json_extract_string(attributes, '$.signal'), 'unknown'),
           'dropped: ' || coalesce(json_extract_string(attributes, '$."error.type"'), 'unknown'),
           max(value) - coalesce(max(value) FILTER (time_ns < $first), CASE WHEN min(start_ns) >= $first THEN 0 ELSE min(value) END)
    FROM points WHERE name = 'bulk.telemetry.dropped' AND time_ns <= $last
    GROUP BY service_instance_id, attributes
) GROUP BY ALL HAVING sum(records) > 0 ORDER BY signal, reason
