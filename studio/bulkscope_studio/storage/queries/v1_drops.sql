-- How many counts of what was not taken there are up to $last: explain_drops.sql reads them.
SELECT (SELECT count(*) FROM points WHERE name = 'bulk.telemetry.dropped' AND time_ns <= $last)
       + (SELECT count(*) FROM ingest WHERE outcome = 'refused' AND time_ns <= $last) AS counts
