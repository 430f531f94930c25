-- From where on the newest $most logs before $before_ns are, to a thousandth of the time that there are logs of: of a
-- thousandth that holds more all. `older` is how many there are before that.
WITH reach AS (
    SELECT coalesce((max(time_ns) - min(time_ns)) // 1000 + 1, 1) AS width FROM logs
), bins AS (
    SELECT time_ns // width AS bin, any_value(width) AS width, count(*) AS n FROM logs, reach
    WHERE time_ns < $before_ns GROUP BY 1
), summed AS (
    SELECT bin, width, n, sum(n) OVER (ORDER BY bin DESC) AS till, sum(n) OVER () AS total FROM bins
), found AS (
    -- The newest bin always, then as many as fit.
    SELECT bin, width, till, total FROM summed WHERE till <= $most OR till = n ORDER BY bin LIMIT 1
)
SELECT coalesce(max(bin * width), 0)::BIGINT AS from_ns, coalesce(max(total - till), 0)::BIGINT AS older FROM found
