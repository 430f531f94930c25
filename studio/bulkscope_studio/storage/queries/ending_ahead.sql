-- Jobs of other bulks, and of no bulk, that were sent from $first to $last and that nobody had taken by $heard: in which
-- queue, and since when. What is not taken though its queue went on is left to whoever asks.
SELECT s.queue, s.start_ns AS ready_ns
FROM rules.sent_jobs s
     ANTI JOIN rules.begun_attempts([], $first, $heard, every_job := true) b
     ON b.job_id = s.job_id AND b.bulk_id IS NOT DISTINCT FROM s.bulk_id
     LEFT JOIN rules.cancellations c ON c.job_id = s.job_id AND c.bulk_id IS NOT DISTINCT FROM s.bulk_id
WHERE rules.called_off(c.said_ns, c.reason, s.start_ns, s.expires_ns, NULL, NULL, NULL) IS NULL
  AND s.start_ns BETWEEN $first AND $last AND s.bulk_id IS DISTINCT FROM $bulk
ORDER BY s.start_ns
