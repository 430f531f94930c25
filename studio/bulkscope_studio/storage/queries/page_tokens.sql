-- Output tokens, by the bin in which the inference ended.
SELECT bin * $bin_ns // 1000000 AS t_ms, n FROM (
    SELECT end_ns // $bin_ns AS bin, sum(output_tokens) AS n
    FROM spans WHERE rules.is_inference(kind, model) AND end_ns BETWEEN $from_ns AND $to_ns
    GROUP BY bin HAVING count(output_tokens) > 0
) ORDER BY t_ms
