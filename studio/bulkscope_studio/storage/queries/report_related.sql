-- Bulks that a bulk is part of, since jobs of theirs sent jobs of it, and bulks that jobs of it sent jobs of.
SELECT DISTINCT 'parent' AS relation, parent_bulk_id AS bulk FROM spans
WHERE bulk_id = $bulk AND start_ns BETWEEN $bulk_first AND $bulk_last AND kind = 'PRODUCER' AND parent_bulk_id IS NOT NULL
UNION ALL
-- Their sends are made while jobs of this bulk run.
SELECT DISTINCT 'nested', bulk_id FROM spans
WHERE parent_bulk_id = $bulk AND start_ns BETWEEN $bulk_first AND $bulk_last AND kind = 'PRODUCER' AND bulk_id IS NOT NULL
ORDER BY ALL
