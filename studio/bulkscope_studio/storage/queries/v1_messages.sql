-- What spans say of their errors, and their first exception event.
SELECT trace_id, span_id, left(status_message, 2000) AS message FROM rules.recorded_spans
WHERE trace_id IN (SELECT unnest($traces)) AND span_id IN (SELECT unnest($spans))
