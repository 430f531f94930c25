-- Jobs that wait and the age of the oldest, by queue and bin. Several processes may report one queue: in a bin their reports
-- are of one thing, so averaged.
SELECT floor((time_ns - $from_ns) / ($to_ns - $from_ns) * $bins)::INTEGER AS bin, coalesce(attributes, '') AS queue,
       avg(value) FILTER (name = 'bulk.queue.depth') AS depth, avg(value) FILTER (name = 'bulk.queue.oldest_age') AS age
FROM points
WHERE name IN ('bulk.queue.depth', 'bulk.queue.oldest_age') AND time_ns BETWEEN $from_ns AND $to_ns
GROUP BY 1, 2 ORDER BY 1, 2
