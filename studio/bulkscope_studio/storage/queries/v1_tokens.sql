-- Tokens/s of inferences, as the changes of a rate: those of the prompt from the begin to the first token, those that were
-- generated from there to the end, evenly. Of each bin ($bins from $from_ns to $to_ns; -1 is before) the sum of the changes, and
-- of each times the seconds since $from_ns at which it is: so tokens up to the edge of a bin are exact (services/axis.py).
-- Other filters are off when NULL.
WITH each AS (
    SELECT (start_ns - $from_ns) / 1e9 AS begin_s, (end_ns - $from_ns) / 1e9 AS end_s,
           least(coalesce(prefill, ttft), seconds) AS first_s, input_tokens, output_tokens
    FROM rules.inferences
    WHERE end_ns >= $from_ns AND start_ns <= $to_ns AND ($bulk IS NULL OR bulk_id = $bulk)
      AND ($host IS NULL OR host_name = $host)
      AND ($service IS NULL OR resource_id IN (SELECT resource_id FROM resources
          WHERE json_extract_string(attributes, '$."service.name"') = $service))
), spread AS (
    -- Of no length there is no rate: a millisecond at least.
    SELECT begin_s, greatest(begin_s + coalesce(first_s, end_s - begin_s), begin_s + 0.001) AS until_s, input_tokens AS input,
           NULL AS output FROM each WHERE input_tokens IS NOT NULL
    UNION ALL
    SELECT least(begin_s + coalesce(first_s, 0), end_s - 0.001), greatest(end_s, begin_s), NULL, output_tokens
    FROM each WHERE output_tokens IS NOT NULL
), changes AS (
    SELECT begin_s AS at_s, input / (until_s - begin_s) AS input, output / (until_s - begin_s) AS output FROM spread
    UNION ALL
    SELECT until_s, -input / (until_s - begin_s), -output / (until_s - begin_s) FROM spread
)
SELECT greatest(-1, least($bins, floor(at_s * 1e9 / ($to_ns - $from_ns) * $bins)))::INTEGER AS bin,
       sum(input) AS input_rate, sum(input * at_s) AS input_moment, sum(output) AS output_rate,
       sum(output * at_s) AS output_moment
FROM changes GROUP BY bin ORDER BY bin
