-- What the process that ran each inference of a bulk had run before it: how many inferences, and whether one of them was of
-- another model. An engine in another process serves all workers of its host that ask one, and is taken for one process.
WITH named AS (
    SELECT bulk_id, span_id, trace_id, model, start_ns,
           CASE WHEN apart THEN 'engine on ' || host_name ELSE coalesce(instance, worker) END AS process
    FROM rules.inferences WHERE start_ns <= $bulk_last
), own AS (
    SELECT DISTINCT process FROM named WHERE bulk_id = $bulk AND start_ns BETWEEN $bulk_first AND $bulk_last
), ranked AS (
    SELECT bulk_id, span_id, trace_id, start_ns, process,
           row_number() OVER before - 1 AS ran_before,
           min(model) OVER before <> model OR max(model) OVER before <> model AS ran_other
    FROM named SEMI JOIN own USING (process)
    WINDOW before AS (PARTITION BY process ORDER BY start_ns, span_id ROWS UNBOUNDED PRECEDING)
)
SELECT span_id, start_ns, process, ran_before, ran_other FROM ranked
WHERE bulk_id = $bulk AND start_ns BETWEEN $bulk_first AND $bulk_last
ORDER BY start_ns, span_id
