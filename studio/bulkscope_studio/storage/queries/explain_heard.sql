-- When anything was first and last heard of anything: silence before a studio was started, or after it was stopped,
-- proves nothing. What a clock ahead says was heard after $credible_ns does not count, where anything else was.
SELECT least((SELECT min(time_ns) FROM points), (SELECT min(time_ns) FROM logs), (SELECT min(start_ns) FROM spans)) AS first_ns,
       coalesce(
           greatest((SELECT max(time_ns) FROM points WHERE time_ns <= $credible_ns),
                    (SELECT max(time_ns) FROM logs WHERE time_ns <= $credible_ns),
                    (SELECT max(end_ns) FROM spans WHERE end_ns <= $credible_ns)),
           greatest((SELECT max(time_ns) FROM points), (SELECT max(time_ns) FROM logs), (SELECT max(end_ns) FROM spans))
       ) AS last_ns
