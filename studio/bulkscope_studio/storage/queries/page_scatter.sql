-- Times (s) and tokens of a sample of at most 2,000 inferences (sampled after the filter, hence the subquery).
SELECT * FROM (
    SELECT model, output_tokens, rules.computed_tokens(input_tokens, cached_tokens) AS computed_tokens,
           decode, prefill, (end_ns - start_ns) / 1e9 AS seconds
    FROM spans /*sample*/ WHERE rules.is_inference(kind, model) AND output_tokens IS NOT NULL
) USING SAMPLE reservoir(2000 ROWS) REPEATABLE (1)
