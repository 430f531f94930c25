-- How many jobs of a bulk were sent, and how many have ended for good; no row without spans. Reads `listed` of
-- summaries.py.
SELECT sent, done + failed + cancelled AS ended FROM listed WHERE bulk_id = $bulk
