-- Times (s) and tokens of a sample of at most 2,000 inferences (sampled after the filter, hence the subquery).
SELECT * FROM (
    SELECT model, output_tokens, computed_tokens, decode, prefill, seconds FROM inferences /*sample*/
    WHERE output_tokens IS NOT NULL
) USING SAMPLE reservoir(2000 ROWS) REPEATABLE (1)
