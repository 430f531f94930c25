-- Jobs of other bulks, and of no bulk, that were put from $first to $last and that nobody has taken: in which queue, and
-- since when. What is not taken though its queue went on is left to whoever asks.
SELECT queue, start_ns AS ready_ns FROM rules.sent_jobs
WHERE start_ns BETWEEN $first AND $last AND bulk_id IS DISTINCT FROM $bulk
  AND job_id NOT IN (
      SELECT job_id FROM rules.begun_attempts([], $first, $heard, every_job := true) WHERE job_id IS NOT NULL
  )
ORDER BY start_ns
