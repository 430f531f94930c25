-- Records that did not arrive in the window: refused here, or counted as lost by their senders.
SELECT signal, reason, CAST(sum(records) AS BIGINT) AS records FROM (
    SELECT signal, 'refused: ' || reason AS reason, records FROM ingest
    WHERE outcome = 'refused' AND time_ns BETWEEN $first AND $last
    UNION ALL
    SELECT coalesce(json_extract_string(attributes, '$.signal'), 'unknown'),
           'dropped: ' || coalesce(json_extract_string(attributes, '$."error.type"'), 'unknown'),
           max(value) - coalesce(max(value) FILTER (time_ns < $first), 0)
    FROM points WHERE name = 'bulk.telemetry.dropped' AND time_ns <= $last
    GROUP BY service_instance_id, attributes
) GROUP BY ALL HAVING sum(records) > 0 ORDER BY signal, reason
