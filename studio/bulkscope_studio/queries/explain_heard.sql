-- When anything was last heard of anything: after a studio was stopped, silence proves nothing.
SELECT greatest((SELECT max(time_ns) FROM points), (SELECT max(time_ns) FROM logs), (SELECT max(end_ns) FROM spans)) AS time_ns
