-- The one definition of every number that is derived from what was recorded. `views.py` applies it to each store, also to
-- one in memory and to a file that is open for reading alone. Tables are those of schema.sql; `rules.credible_COLUMN(x)`
-- is absent for a number that nothing can have measured (credible.py). Times are ns since the Unix epoch, durations s.

-- attempts and jobs

-- The name of a worker (workers.py). Stores of before have none: host and process id, which the containers of a host may
-- share.
CREATE OR REPLACE MACRO rules.worker_name(worker, host_name, pid, service_instance_id, service_name) AS
    coalesce(worker, host_name || ':' || pid, service_instance_id, service_name, 'worker');

-- Which process of a name a worker is; NULL where it is a slot of a pool, whichever process fills it.
CREATE OR REPLACE MACRO rules.worker_instance(worker, instance) AS
    CASE WHEN NOT regexp_matches(worker, ':[0-9]+#[0-9]+$') THEN instance END;

-- A job of a sender that names none is one attempt.
CREATE OR REPLACE MACRO rules.job_key(job_id, span_id) AS coalesce(job_id, span_id);

-- An attempt that has ended is one of three: 'retried' (to be tried again, whatever its status), 'done' or 'failed'.
CREATE OR REPLACE MACRO rules.attempt_state(status, failure_domain, outcome) AS
    CASE WHEN outcome = 'retry' THEN 'retried'
         WHEN status IS DISTINCT FROM 'ERROR' AND failure_domain IS NULL AND coalesce(outcome, 'ok') = 'ok' THEN 'done'
         ELSE 'failed' END;

-- Which attempt decides a job: the one with the highest rank. That is the
-- highest number (one without is the first), of equal numbers (the broker gave the job to another worker) the latest
-- start, and of those that began at once one that ended before one that did not, to be tried again before done before
-- failed. So what is done stays done when an earlier attempt ends later, and an attempt that began last decides before it
-- ends: then the job is neither done nor failed. One number, since comparing rows takes twice as long.
CREATE OR REPLACE MACRO rules.attempt_rank(attempt, start_ns, state) AS
    CAST(coalesce(attempt, 1) AS HUGEINT) * 73786976294838206464 + CAST(start_ns AS HUGEINT) * 4
    + CASE state WHEN 'retried' THEN 3 WHEN 'done' THEN 2 WHEN 'failed' THEN 1 ELSE 0 END;
-- The state of the attempt in a rank: 0 not ended, 1 failed, 2 done, 3 retried.
CREATE OR REPLACE MACRO rules.rank_state(rank) AS rank & 3;

-- What a parent tells of a killed process has that process' pid, and no instance.
CREATE OR REPLACE MACRO rules.told_by_parent(service_instance_id, pid) AS service_instance_id IS NULL AND pid IS NOT NULL;
-- Its span ends what the process began, up to 2 s before or after it by their accounts.
CREATE OR REPLACE MACRO rules.ends(told_start_ns, told_end_ns, begun_ns) AS
    begun_ns BETWEEN told_start_ns - 2000000000 AND told_end_ns + 2000000000;

-- When a job was enqueued for an attempt, by what its worker says.
CREATE OR REPLACE MACRO rules.enqueued_before(start_ns, wait, delay) AS
    start_ns - CAST(round((wait + coalesce(delay, 0)) * 1e9) AS BIGINT);

-- What an attempt waited: as its worker measured it, or since its sender sent it. Below 0 where their clocks differ.
CREATE OR REPLACE MACRO rules.waited(wait, start_ns, sent_ns, delay) AS
    coalesce(wait, (start_ns - sent_ns) / 1e9 - coalesce(delay, 0));
-- Whether an attempt is the one that its sender's span sent; a retry is sent by the worker.
CREATE OR REPLACE MACRO rules.is_first(attempt) AS coalesce(attempt, 1) = 1;

-- Whole rows as they were recorded; in a file of an older version with the columns that it lacks.
CREATE OR REPLACE VIEW rules.recorded_spans AS SELECT * FROM spans;
CREATE OR REPLACE VIEW rules.recorded_logs AS SELECT * FROM logs;
CREATE OR REPLACE VIEW rules.recorded_points AS SELECT * FROM points;

CREATE OR REPLACE VIEW rules.ended_attempts AS
SELECT rowid AS row, trace_id, span_id, bulk_id, job_id, rules.credible_attempt(attempt) AS attempt, start_ns, end_ns,
       rules.credible_wait(wait) AS wait, rules.credible_delay(delay) AS delay,
       rules.credible_wait_ratio(wait_ratio) AS wait_ratio, rules.credible_import_time(import_time) AS import_time,
       rules.attempt_state(status, failure_domain, outcome) AS state,
       failure_domain, error_type,
       rules.worker_name(worker, host_name, pid, service_instance_id, service_name) AS worker,
       coalesce(host_name, '') AS host_name, queue, service_instance_id AS instance, resource_id,
       rules.told_by_parent(service_instance_id, pid) AS told
FROM spans WHERE kind = 'CONSUMER';

-- What became of a send: 'sent', 'not_sent' (the broker did not take the job) or 'duplicate' (it refused the job, as it
-- has one of this id).
CREATE OR REPLACE MACRO rules.send_state(status, outcome) AS
    CASE WHEN outcome = 'duplicate' THEN 'duplicate' WHEN status = 'ERROR' THEN 'not_sent' ELSE 'sent' END;
-- When no worker takes a job any more, by one send; NULL where it waits for ever. Of several sends the last such time
-- counts, and none where one of them has none.
CREATE OR REPLACE MACRO rules.expires_at(start_ns, expires) AS
    start_ns + CAST(round(expires * 1e9) AS BIGINT);
CREATE OR REPLACE MACRO rules.last_expiry(sent, expires_ns) AS
    nullif(max(CASE WHEN sent THEN coalesce(expires_ns, 9223372036854775807) END), 9223372036854775807);
-- How often those who enqueue a job have sent it beyond the first time. A retry is another attempt's; a span that is
-- stored twice is one.
CREATE OR REPLACE MACRO rules.repeated(attempt, trace_id, span_id) AS
    -- Of distinct texts a count takes three times as long.
    greatest(len(list_distinct(list(hash(trace_id, span_id)) FILTER (span_id IS NOT NULL AND coalesce(attempt, 1) <= 1)))
             - 1, 0);

CREATE OR REPLACE VIEW rules.sent_jobs AS
SELECT trace_id, span_id, bulk_id, job_id, start_ns, queue, attempt,
       rules.expires_at(start_ns, rules.credible_expires(expires)) AS expires_ns
FROM spans WHERE kind = 'PRODUCER' AND job_id IS NOT NULL AND rules.send_state(status, outcome) = 'sent';

-- What says that a job ended before a worker began it.
CREATE OR REPLACE MACRO rules.is_cancellation(kind, outcome) AS kind = 'CLIENT' AND outcome = 'cancelled';

CREATE OR REPLACE VIEW rules.cancellations AS
SELECT bulk_id, job_id, start_ns AS said_ns, coalesce(error_type, 'cancelled') AS reason FROM spans
WHERE rules.is_cancellation(kind, outcome) AND job_id IS NOT NULL;

CREATE OR REPLACE MACRO rules.now_ns() AS epoch_us(now()) * 1000;

-- Why a job is cancelled, NULL where it is not. `start_ns`, `seen_ns` and `state` are of the attempt that decides it, if
-- one began; `put_ns` is when it was last sent. What was said before that, or before it was last heard of at work, counts
-- no more; two hosts' clocks may differ by 2 s. A job that is to be tried again may be called off, or expire, as well as
-- one that was never begun.
CREATE OR REPLACE MACRO rules.called_off(said_ns, reason, put_ns, expires_ns, start_ns, seen_ns, state) AS
    CASE WHEN start_ns IS NOT NULL AND state IN ('done', 'failed') THEN NULL
         WHEN said_ns + 2000000000 >= coalesce(put_ns, said_ns) AND said_ns > coalesce(seen_ns, 0) THEN reason
         WHEN (start_ns IS NULL OR state = 'retried') AND expires_ns < rules.now_ns() THEN 'expired' END;

-- What a job's process says when it begins, and every few seconds.
CREATE OR REPLACE VIEW rules.heartbeats AS
SELECT rowid AS row, trace_id, span_id, bulk_id, job_id, time_ns, attributes,
       rules.worker_name(worker, host_name, pid, service_instance_id, service_name) AS worker,
       host_name, service_name, service_instance_id AS instance, resource_id
FROM logs WHERE event_name IN ('bulk.job.started', 'bulk.job.heartbeat');

-- Whether a record is of a span: its id is unique in its trace alone, which a log record need not name.
CREATE OR REPLACE MACRO rules.is_of(record_trace_id, record_span_id, trace_id, span_id) AS
    span_id = record_span_id AND coalesce(trace_id = record_trace_id, true);

-- Attempts that ended, in a time; those of a list of bulks, whose records are all in that time, or of `every_job`.
CREATE OR REPLACE MACRO rules.ended_in(of_bulks, from_ns, to_ns, every_job := false) AS TABLE
SELECT * FROM rules.ended_attempts
WHERE (every_job OR bulk_id IN (SELECT unnest(of_bulks))) AND end_ns >= from_ns AND start_ns <= to_ns;

-- Attempts of which their process alone has told, in a time as above: they began and have not ended. What a process of
-- `every_job` logged and its span are looked for within an hour.
CREATE OR REPLACE MACRO rules.open_attempts(of_bulks, from_ns, to_ns, every_job := false) AS TABLE
WITH near AS NOT MATERIALIZED (
    SELECT * FROM rules.ended_in(
        of_bulks, from_ns - CASE WHEN every_job THEN 3600000000000 ELSE 0 END,
        to_ns + CASE WHEN every_job THEN 3600000000000 ELSE 0 END, every_job := every_job)
), said AS NOT MATERIALIZED (
    SELECT * FROM rules.heartbeats
    WHERE (every_job OR bulk_id IN (SELECT unnest(of_bulks))) AND time_ns BETWEEN from_ns AND to_ns
      AND job_id IS NOT NULL AND span_id IS NOT NULL
), without AS (
    -- By their ids alone, and only then whole rows of the few: else 100,000 ended attempts took 46 ms instead of 36.
    SELECT s.trace_id, s.span_id FROM said s ANTI JOIN near n ON rules.is_of(s.trace_id, s.span_id, n.trace_id, n.span_id)
), open AS (
    SELECT -1 - min(row) AS row, trace_id, span_id, min(bulk_id) AS bulk_id, min(job_id) AS job_id,
           rules.credible_attempt(max(TRY_CAST(json_extract(attributes, '$."bulk.job.attempt"') AS INTEGER))) AS attempt,
           min(time_ns) AS start_ns, max(time_ns) AS seen_ns, min(worker) AS worker,
           coalesce(min(host_name), '') AS host_name, min(instance) AS instance
    FROM (
        -- A record that names no trace is of the attempt whose others do.
        SELECT s.* REPLACE (coalesce(s.trace_id, max(s.trace_id) OVER (PARTITION BY s.span_id)) AS trace_id)
        FROM said s SEMI JOIN without w ON w.span_id = s.span_id AND w.trace_id IS NOT DISTINCT FROM s.trace_id
    ) GROUP BY trace_id, span_id
)
SELECT o.* FROM open o
       ANTI JOIN (SELECT * FROM near WHERE told) k
       ON k.job_id = o.job_id AND k.worker = o.worker AND rules.ends(k.start_ns, k.end_ns, o.start_ns);

-- Attempts that began, in a time as above: those that ended, and those that have not.
CREATE OR REPLACE MACRO rules.begun_attempts(of_bulks, from_ns, to_ns, every_job := false) AS TABLE
WITH begun AS (
    SELECT row, trace_id, span_id, bulk_id, job_id, attempt, start_ns, end_ns, end_ns AS seen_ns, wait, delay, import_time,
           state, failure_domain, error_type, worker, host_name, queue, instance, told
    FROM rules.ended_in(of_bulks, from_ns, to_ns, every_job := every_job)
    UNION ALL
    SELECT row, trace_id, span_id, bulk_id, job_id, attempt, start_ns, NULL, seen_ns, NULL, NULL, NULL, NULL, NULL, NULL,
           worker, host_name, NULL, instance, false
    FROM rules.open_attempts(of_bulks, from_ns, to_ns, every_job := every_job)
)
SELECT *, rules.job_key(job_id, span_id) AS job, rules.attempt_rank(attempt, start_ns, state) AS rank FROM begun;

-- All attempts, with when they were enqueued, and sent jobs that nobody has taken (start_ns is NULL), in a time as above.
-- `decides`: the attempt tells how its job stands, but for one that was `called_off` after it, or that nobody took.
-- `sent_ns`: when the sender says that it enqueued a first attempt. `repeated`: how often the job was sent once more under
-- the same id, in the row that decides it. Ids of jobs are unique in their bulk alone; one side may not know the bulk.
CREATE OR REPLACE MACRO rules.attempts(of_bulks, from_ns, to_ns, every_job := false) AS TABLE
WITH begun AS MATERIALIZED (
    SELECT * FROM rules.begun_attempts(of_bulks, from_ns, to_ns, every_job := every_job)
), known AS (
    SELECT bulk_id, job, row, rank, NULL AS enqueue_ns, NULL AS queue, NULL AS expires_ns, NULL AS attempt,
           NULL AS trace_id, NULL AS span_id
    FROM begun
    UNION ALL
    SELECT bulk_id, job_id, NULL, NULL, start_ns, queue, expires_ns, attempt, trace_id, span_id FROM rules.sent_jobs
    WHERE (every_job OR bulk_id IN (SELECT unnest(of_bulks))) AND start_ns BETWEEN from_ns AND to_ns
), jobs AS MATERIALIZED (
    -- With a window over the rows it would take twice as long.
    -- By row: a span's id is unique in its trace alone, and one that came again after long is stored twice.
    SELECT bulk_id, job, arg_max(row, rank) AS row, min(enqueue_ns) AS enqueue_ns, min(queue) AS queue,
           max(enqueue_ns) AS last_ns, rules.last_expiry(enqueue_ns IS NOT NULL, expires_ns) AS expires_ns,
           rules.repeated(attempt, trace_id, span_id) AS repeated
    FROM known GROUP BY bulk_id, job
), called AS (
    SELECT bulk_id, job_id AS job, max(said_ns) AS said_ns, arg_max(reason, said_ns) AS reason FROM rules.cancellations
    WHERE (every_job OR bulk_id IN (SELECT unnest(of_bulks)))
      AND said_ns BETWEEN from_ns AND to_ns + CASE WHEN every_job THEN 3600000000000 ELSE 0 END
    GROUP BY bulk_id, job_id
), unnamed AS (
    SELECT job, enqueue_ns, queue FROM jobs WHERE every_job AND bulk_id IS NULL AND enqueue_ns IS NOT NULL
), firsts AS (
    SELECT b.*, CASE WHEN rules.is_first(b.attempt) THEN coalesce(j.enqueue_ns, u.enqueue_ns) END AS sent_ns,
           coalesce(j.queue, u.queue) AS sent_to,
           j.row = b.row AS decides,
           CASE WHEN j.row = b.row
                THEN rules.called_off(c.said_ns, c.reason, j.last_ns, j.expires_ns, b.start_ns, b.seen_ns, b.state)
           END AS called_off,
           CASE WHEN j.row = b.row THEN j.repeated ELSE 0 END AS repeated
    FROM begun b
         JOIN jobs j ON j.job = b.job AND j.bulk_id IS NOT DISTINCT FROM b.bulk_id
         LEFT JOIN unnamed u ON u.job = b.job AND b.bulk_id IS NOT NULL
         LEFT JOIN called c ON c.job = b.job AND c.bulk_id IS NOT DISTINCT FROM b.bulk_id
), taken AS (
    -- A job may be taken long after that time, but not before it was sent, give or take two hosts' clocks.
    SELECT bulk_id, job_id FROM rules.ended_attempts WHERE every_job AND end_ns >= from_ns - 3600000000000
    UNION ALL
    SELECT bulk_id, job FROM jobs WHERE every_job AND row IS NOT NULL
)
SELECT bulk_id, job_id, attempt, span_id, trace_id,
       -- The sender's start is the enqueue of a first attempt; a retry was enqueued later, so its wait tells.
       coalesce(sent_ns, rules.enqueued_before(start_ns, wait, delay)) AS enqueue_ns,
       start_ns, end_ns, seen_ns,
       CASE WHEN end_ns IS NOT NULL THEN rules.waited(wait, start_ns, sent_ns, delay) END AS wait,
       delay, import_time, state, state = 'retried' AS retried, state = 'done' AS ok, failure_domain, error_type, worker,
       host_name, coalesce(sent_to, queue) AS queue, sent_ns, rules.worker_instance(worker, instance) AS instance, told,
       decides, called_off, repeated
FROM firsts
UNION ALL
SELECT j.bulk_id, j.job, NULL, NULL, NULL, j.enqueue_ns, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL,
       NULL, NULL, j.queue, j.enqueue_ns, NULL, NULL, true,
       rules.called_off(c.said_ns, c.reason, j.last_ns, j.expires_ns, NULL, NULL, NULL), j.repeated
FROM (SELECT * FROM jobs WHERE row IS NULL) j
     LEFT JOIN called c ON c.job = j.job AND c.bulk_id IS NOT DISTINCT FROM j.bulk_id
     ANTI JOIN taken t ON t.job_id = j.job AND coalesce(t.bulk_id = j.bulk_id, true);

-- Processes that worked on jobs in one of the windows (lists of ns), what each may use, and from when to when it is known
-- to have lived, by what it said from `said_from` to `said_to`; how near its cgroup came to its limit counts from
-- `held_from` on. Of one that was killed at its first job the parent's limits are told.
CREATE OR REPLACE MACRO rules.workers(firsts, lasts, said_from, said_to, held_from) AS TABLE
WITH windows AS (
    SELECT unnest(firsts) AS first_ns, unnest(lasts) AS last_ns
), each AS (
    SELECT instance AS service_instance_id, min(resource_id) AS resource_id, worker, host_name
    FROM rules.ended_attempts s
    WHERE s.end_ns >= list_min(firsts) AND s.start_ns <= list_max(lasts)
      AND EXISTS (SELECT 1 FROM windows w WHERE s.end_ns >= w.first_ns AND s.start_ns <= w.last_ns)
    GROUP BY ALL
), worked AS (
    -- What a parent told of a killed process has no instance: it makes no second one of it.
    SELECT * FROM each
    QUALIFY service_instance_id IS NOT NULL OR count(service_instance_id) OVER (PARTITION BY worker, host_name) = 0
), said AS (
    SELECT p.service_instance_id, min(p.time_ns) AS first_ns, max(p.time_ns) AS last_ns,
           max(rules.credible_point(p.name, p.value))
               FILTER (p.name = 'bulk.worker.memory.utilization' AND p.time_ns >= held_from) AS memory_utilization
    FROM points p
    WHERE p.name IN ('process.memory.usage', 'bulk.worker.memory.utilization')
      AND p.time_ns BETWEEN said_from AND said_to
      AND p.service_instance_id IN (SELECT service_instance_id FROM worked)
    GROUP BY p.service_instance_id
), each_of_them AS (
    SELECT w.worker, rules.worker_instance(w.worker, w.service_instance_id) AS instance, w.host_name, s.first_ns, s.last_ns,
           s.memory_utilization, w.resource_id,
           rules.credible_cpus(TRY_CAST(json_extract(r.attributes, '$."bulk.worker.cpus"') AS DOUBLE)) AS cpus,
           json_extract_string(r.attributes, '$."bulk.worker.cpu.set"') AS cpu_set,
           json_extract_string(r.attributes, '$."container.id"') AS container_id
    FROM worked w LEFT JOIN said s USING (service_instance_id) LEFT JOIN resources r ON r.resource_id = w.resource_id
)
SELECT worker, instance, host_name, min(first_ns) AS first_ns, max(last_ns) AS last_ns,
       max(memory_utilization) AS memory_utilization, arg_max(cpus, resource_id) AS cpus,
       arg_max(cpu_set, resource_id) AS cpu_set, arg_max(container_id, resource_id) AS container_id,
       max(resource_id) AS resource_id
FROM each_of_them GROUP BY worker, instance, host_name;

-- inferences and requests

-- A span is an inference where it names a model and is of the process that asked the engine; a model that a service names
-- on its own request or job makes none of that.
CREATE OR REPLACE MACRO rules.is_inference(kind, model) AS model IS NOT NULL AND kind IN ('INTERNAL', 'CLIENT');

-- Memory of an inference as its worker's. An engine in another process (`apart`) is one for all workers that ask it:
-- one more of them takes none of it.
CREATE OR REPLACE MACRO rules.memory_of_worker(apart, bytes) AS CASE WHEN NOT apart THEN bytes END;

-- Tokens that prefill had to compute: those of the prompt that did not come from the cache.
CREATE OR REPLACE MACRO rules.computed_tokens(input_tokens, cached_tokens) AS
    greatest(input_tokens - coalesce(cached_tokens, 0), 0);

CREATE OR REPLACE VIEW rules.inferences AS
SELECT trace_id, span_id, bulk_id, job_id, start_ns, end_ns, (end_ns - start_ns) / 1e9 AS seconds,
       status IS DISTINCT FROM 'ERROR' AS ok, resource_id, coalesce(host_name, '') AS host_name,
       rules.worker_name(worker, host_name, pid, service_instance_id, service_name) AS worker,
       rules.worker_instance(
           rules.worker_name(worker, host_name, pid, service_instance_id, service_name), service_instance_id) AS instance,
       model,
       rules.credible_input_tokens(input_tokens) AS input_tokens,
       rules.credible_output_tokens(output_tokens) AS output_tokens,
       rules.credible_cached_tokens(cached_tokens) AS cached_tokens,
       coalesce(rules.credible_batch_size(batch_size), 1) AS prompts,
       rules.credible_ttft(ttft) AS ttft, rules.credible_prefill(prefill) AS prefill,
       rules.credible_decode(decode) AS decode,
       rules.credible_cpu_time(cpu_time) AS cpu_time, rules.credible_cpu_utilization(cpu_utilization) AS cpu_utilization,
       cpu_exact, rules.credible_cpu_pressure(cpu_pressure) AS cpu_pressure,
       rules.credible_cpu_throttled(cpu_throttled) AS cpu_throttled, rules.credible_cpu_wait(cpu_wait) AS cpu_wait,
       rules.credible_memory_start(memory_start) AS memory_start, rules.credible_memory_peak(memory_peak) AS memory_peak,
       rules.credible_memory_growth(memory_growth) AS memory_growth,
       rules.credible_memory_file(memory_file) AS memory_file, rules.credible_memory_anon(memory_anon) AS memory_anon,
       rules.credible_memory_limit(memory_limit) AS memory_limit, memory_exact, kind = 'CLIENT' AS apart
FROM spans WHERE rules.is_inference(kind, model);

-- How a request ended. Another instrumentation gives no outcome, and its HTTP status decides; kibana/source/_blocks.yaml
-- and prometheus/rules say the same.
CREATE OR REPLACE MACRO rules.request_outcome(outcome, http_status, status) AS
    coalesce(outcome, CASE WHEN http_status IN (429, 503) THEN 'overload'
                           WHEN http_status BETWEEN 400 AND 499 THEN 'client_error'
                           WHEN http_status >= 500 OR status = 'ERROR' THEN 'internal_error'
                           WHEN http_status IS NOT NULL THEN 'ok' ELSE 'unknown' END);

-- Whether a request of a bulk counts as one that could send jobs: clients that ask for progress would drown them, so a
-- read counts only when it sent something.
CREATE OR REPLACE MACRO rules.request_sends(http_method, bulk_size) AS
    coalesce(http_method, '') NOT IN ('GET', 'HEAD', 'OPTIONS') OR coalesce(bulk_size, 0) > 0;

-- Wait over total latency of an attempt, by what its worker measured: wait, scheduled delay and work. Absent where the wait
-- is, or is negative.
CREATE OR REPLACE MACRO rules.wait_ratio(wait, delay, start_ns, end_ns) AS
    CASE WHEN wait >= 0 THEN wait / nullif(wait + coalesce(delay, 0) + (end_ns - start_ns) / 1e9, 0) END;

-- One row a job: its deciding attempt, how many there were, and the good inferences of that attempt; of a list of bulks, or
-- of `every_job`, in a time as above.
CREATE OR REPLACE MACRO rules.jobs(of_bulks, from_ns, to_ns, every_job := false) AS TABLE
WITH tried AS (
    SELECT *, rules.job_key(job_id, span_id) AS job FROM rules.attempts(of_bulks, from_ns, to_ns, every_job := every_job)
), tries AS (
    SELECT bulk_id, job, count(start_ns) AS attempts FROM tried GROUP BY bulk_id, job
), used AS (
    SELECT a.bulk_id, a.job, min(i.model) AS model, sum(i.seconds) AS inference_s, sum(i.prefill) AS prefill_s,
           sum(i.decode) AS decode_s, min(i.ttft) AS ttft_s, sum(i.input_tokens)::BIGINT AS input_tokens,
           sum(i.cached_tokens)::BIGINT AS cached_tokens,
           sum(rules.computed_tokens(i.input_tokens, i.cached_tokens))::BIGINT AS computed_tokens,
           sum(i.output_tokens)::BIGINT AS output_tokens, sum(i.cpu_time) AS cpu_s, sum(i.cpu_wait) AS cpu_wait_s,
           max(i.memory_peak)::BIGINT AS memory_peak_bytes
    FROM tried a JOIN rules.inferences i
         ON i.job_id = a.job_id AND i.bulk_id = a.bulk_id AND i.start_ns BETWEEN a.start_ns AND coalesce(a.end_ns, to_ns)
    WHERE a.decides AND (every_job OR i.bulk_id IN (SELECT unnest(of_bulks))) AND i.start_ns BETWEEN from_ns AND to_ns
    GROUP BY a.bulk_id, a.job
)
SELECT a.bulk_id AS bulk, a.job AS id,
       CASE WHEN a.called_off IS NOT NULL THEN 'cancelled' WHEN a.start_ns IS NULL THEN 'waiting'
            WHEN a.end_ns IS NULL THEN 'running' WHEN a.state = 'retried' THEN 'retrying' ELSE a.state END AS status,
       coalesce(a.attempt, CASE WHEN a.start_ns IS NOT NULL THEN 1 END) AS attempt, t.attempts, u.model, a.worker,
       a.host_name AS host, a.queue, a.enqueue_ns AS enqueued_ns, a.start_ns AS started_ns, a.end_ns AS ended_ns,
       a.wait AS wait_s, a.delay AS scheduled_delay_s, (a.end_ns - a.start_ns) / 1e9 AS work_s,
       u.* EXCLUDE (bulk_id, job, model), a.failure_domain, a.error_type, a.trace_id, a.span_id
FROM tried a
     JOIN tries t ON t.job = a.job AND t.bulk_id IS NOT DISTINCT FROM a.bulk_id
     LEFT JOIN used u ON u.job = a.job AND u.bulk_id = a.bulk_id
WHERE a.decides;
