-- Jobs of other bulks, and of no bulk, that were sent from $first to $last and that nobody had taken by $heard: in which
-- queue, and since when. What is not taken though its queue went on is left to whoever asks.
SELECT s.queue, s.start_ns AS ready_ns
FROM rules.sent_jobs s
     ANTI JOIN rules.begun_attempts([], $first, $heard, every_job := true) b
     ON b.job_id = s.job_id AND b.bulk_id IS NOT DISTINCT FROM s.bulk_id
WHERE s.start_ns BETWEEN $first AND $last AND s.bulk_id IS DISTINCT FROM $bulk
ORDER BY s.start_ns
