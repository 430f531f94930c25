-- Time (s) against output tokens, a sample of at most 2,000 inferences (sampled after the filter, hence the subquery).
SELECT * FROM (
    SELECT model, output_tokens, (end_ns - start_ns) / 1e9 AS seconds FROM spans
    WHERE model IS NOT NULL AND output_tokens IS NOT NULL
) USING SAMPLE reservoir(2000 ROWS) REPEATABLE (1)
