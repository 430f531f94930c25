-- Of each model at most $each inferences that v1_inference_filter.sql wants and of which tokens are known, drawn by the hash of
-- their ids: evenly, and the same again while no other comes.
SELECT unnest(points, recursive := true) FROM (
    SELECT min_by({'model': model, 'bulk': bulk_id, 'job': job_id, 'trace_id': trace_id, 'span_id': span_id, 'host': host_name,
                   'computed_tokens': rules.computed_tokens(input_tokens, cached_tokens), 'output_tokens': output_tokens,
                   'inference_s': (end_ns - start_ns) / 1e9, 'prefill_s': prefill, 'decode_s': decode},
                  hash(trace_id, span_id), {each}) AS points
    FROM spans WHERE {filter} AND (output_tokens IS NOT NULL OR input_tokens IS NOT NULL)
    GROUP BY model
)
