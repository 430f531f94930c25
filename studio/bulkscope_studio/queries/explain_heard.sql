-- When anything was first and last heard of anything: silence before a studio was started, or after it was stopped,
-- proves nothing.
SELECT least((SELECT min(time_ns) FROM points), (SELECT min(time_ns) FROM logs), (SELECT min(start_ns) FROM spans)) AS first_ns,
       greatest((SELECT max(time_ns) FROM points), (SELECT max(time_ns) FROM logs), (SELECT max(end_ns) FROM spans)) AS last_ns
