-- One span whole.
SELECT s.*, r.attributes AS resource FROM spans s LEFT JOIN resources r USING (resource_id)
WHERE trace_id = $trace_id AND span_id = $span_id LIMIT 1
