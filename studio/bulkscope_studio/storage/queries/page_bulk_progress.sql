-- How far the jobs of one bulk are; no row without spans. Reads `listed` of summaries.py.
SELECT sent, jobs, done, failed, cancelled, not_sent, duplicate, domains FROM listed WHERE bulk_id = $bulk_id
