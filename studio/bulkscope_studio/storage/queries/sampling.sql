-- The samplers that the spans of a bulk were left to (BULKSCOPE_SAMPLING=respect), and the smallest share that one of them
-- keeps: NULL where the caller decides. No row where every span was recorded, which is the default.
SELECT string_agg(DISTINCT sampler, ', ' ORDER BY sampler) AS sampler, min(ratio) AS ratio
FROM (
    SELECT json_extract_string(attributes, '$."bulk.sampling"') AS sampler,
           TRY_CAST(json_extract(attributes, '$."bulk.sampling.ratio"') AS DOUBLE) AS ratio
    FROM resources
    WHERE resource_id IN (SELECT resource_id FROM spans WHERE bulk_id = $bulk AND start_ns BETWEEN $bulk_first AND $bulk_last)
)
WHERE sampler IS NOT NULL
HAVING count(*) > 0
