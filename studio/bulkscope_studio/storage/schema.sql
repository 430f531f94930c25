-- One file. What pages and reports read often is a column of its own (columnar scans of
-- 1 million rows take milliseconds); everything else stays in `attributes` as JSON.
-- Ids are lower-case hex. Times are nanoseconds since the Unix epoch. Absent is NULL, never 0.

CREATE TABLE IF NOT EXISTS resources (
    resource_id VARCHAR PRIMARY KEY,   -- hash of the attributes
    attributes  VARCHAR NOT NULL       -- JSON object
);

CREATE TABLE IF NOT EXISTS spans (
    trace_id VARCHAR NOT NULL, span_id VARCHAR NOT NULL, parent_span_id VARCHAR,
    name VARCHAR, kind VARCHAR,                   -- INTERNAL SERVER CLIENT PRODUCER CONSUMER UNSPECIFIED
    start_ns BIGINT NOT NULL, end_ns BIGINT NOT NULL,
    status VARCHAR, status_message VARCHAR,       -- UNSET OK ERROR
    scope VARCHAR, resource_id VARCHAR, service_name VARCHAR, service_instance_id VARCHAR,
    host_name VARCHAR, pid BIGINT,
    bulk_id VARCHAR, bulk_id_source VARCHAR, job_id VARCHAR, bulk_size BIGINT,
    outcome VARCHAR, failure_domain VARCHAR, error_type VARCHAR, enqueue_duration DOUBLE,
    http_route VARCHAR, http_method VARCHAR, http_status INTEGER,
    queue VARCHAR, task VARCHAR, wait DOUBLE, delay DOUBLE, attempt INTEGER, wait_ratio DOUBLE,
    model VARCHAR, provider VARCHAR,
    input_tokens BIGINT, output_tokens BIGINT, cached_tokens BIGINT,
    ttft DOUBLE, prefill DOUBLE, decode DOUBLE,
    cpu_time DOUBLE, cpu_utilization DOUBLE, cpu_exact BOOLEAN, cpu_pressure DOUBLE, cpu_throttled DOUBLE,
    memory_start BIGINT, memory_peak BIGINT, memory_growth BIGINT, memory_file BIGINT, memory_anon BIGINT,
    memory_limit BIGINT, memory_exact BOOLEAN,
    tokens_per_second DOUBLE, decode_tokens_per_second DOUBLE,
    attributes VARCHAR,                           -- JSON object, what has no column; NULL when empty
    events VARCHAR, links VARCHAR,                -- JSON arrays; NULL when empty
    dropped BIGINT,                               -- attributes + events + links the sender dropped; NULL when 0
    cpu_wait DOUBLE,                              -- s, threads that could have run and had no CPU
    worker VARCHAR,                               -- name of the process (workers.py); of a job's span, of who did it
    import_time DOUBLE,                           -- s, of a job's span: importing the module of its task
    batch_size BIGINT,                            -- prompts of an inference that was given several
    expires DOUBLE,                               -- s from the start of a send: no worker takes the job after that
    parent_bulk_id VARCHAR                        -- of a send: the bulk of the job that sends, where it is another
);
-- Stores of before it was recorded: rows are inserted by position, so new columns come last.
ALTER TABLE spans ADD COLUMN IF NOT EXISTS cpu_wait DOUBLE;
ALTER TABLE spans ADD COLUMN IF NOT EXISTS worker VARCHAR;
ALTER TABLE spans ADD COLUMN IF NOT EXISTS import_time DOUBLE;
ALTER TABLE spans ADD COLUMN IF NOT EXISTS batch_size BIGINT;
ALTER TABLE spans ADD COLUMN IF NOT EXISTS expires DOUBLE;
ALTER TABLE spans ADD COLUMN IF NOT EXISTS parent_bulk_id VARCHAR;

CREATE TABLE IF NOT EXISTS logs (
    time_ns BIGINT NOT NULL, observed_ns BIGINT, trace_id VARCHAR, span_id VARCHAR,
    severity_number INTEGER, severity VARCHAR, event_name VARCHAR, body VARCHAR,
    scope VARCHAR, resource_id VARCHAR, service_name VARCHAR, service_instance_id VARCHAR,
    host_name VARCHAR, pid BIGINT, bulk_id VARCHAR, job_id VARCHAR, attributes VARCHAR, dropped BIGINT,
    worker VARCHAR
);
ALTER TABLE logs ADD COLUMN IF NOT EXISTS worker VARCHAR;

CREATE TABLE IF NOT EXISTS points (
    time_ns BIGINT NOT NULL, start_ns BIGINT, name VARCHAR NOT NULL, unit VARCHAR,
    type VARCHAR NOT NULL,                        -- gauge sum histogram exponential_histogram summary
    temporality VARCHAR, monotonic BOOLEAN,       -- cumulative delta; NULL where it does not apply
    scope VARCHAR, resource_id VARCHAR, service_name VARCHAR, service_instance_id VARCHAR,
    host_name VARCHAR, pid BIGINT,
    attributes VARCHAR,                           -- JSON object with sorted keys: the series' identity; NULL when empty
    value DOUBLE,                                 -- gauge, sum
    count BIGINT, sum DOUBLE, min DOUBLE, max DOUBLE,   -- histograms, summary
    bounds DOUBLE[], buckets BIGINT[],            -- explicit bounds, counts (one more than bounds)
    detail VARCHAR,                               -- JSON: exponential buckets, quantiles
    worker VARCHAR
);
ALTER TABLE points ADD COLUMN IF NOT EXISTS worker VARCHAR;

-- What was refused, truncated or dropped on the way in; shown on every page.
CREATE TABLE IF NOT EXISTS ingest (
    time_ns BIGINT NOT NULL, signal VARCHAR NOT NULL, transport VARCHAR NOT NULL,
    outcome VARCHAR NOT NULL,                     -- refused truncated repeated expired deleted
    reason VARCHAR NOT NULL, records BIGINT NOT NULL
);

-- One row a bulk, so that listing them reads no span (`summaries.py`). A bulk that `bulk_changes` names has changed
-- since its row was made. Records without a bulk are counted in rows without an id.
CREATE TABLE IF NOT EXISTS bulks (
    bulk_id VARCHAR, first_ns BIGINT, last_ns BIGINT,   -- of its spans and log records
    spans BIGINT, logs BIGINT,                          -- records that are stored
    start_ns BIGINT, end_ns BIGINT, sent BIGINT, jobs BIGINT, done BIGINT, failed BIGINT, domains VARCHAR,
    models VARCHAR[], tokens BIGINT, wait DOUBLE,       -- columns of queries/bulk_summary.sql
    cancelled BIGINT, not_sent BIGINT, duplicate BIGINT, expires_ns BIGINT,  -- when the next waiting job expires
    services VARCHAR[], hosts VARCHAR[], workers VARCHAR[],  -- of its spans; workers that ended an attempt
    wait_p95 DOUBLE, work_p95 DOUBLE, tokens_per_s DOUBLE
);
ALTER TABLE bulks ADD COLUMN IF NOT EXISTS cancelled BIGINT;
ALTER TABLE bulks ADD COLUMN IF NOT EXISTS not_sent BIGINT;
ALTER TABLE bulks ADD COLUMN IF NOT EXISTS duplicate BIGINT;
ALTER TABLE bulks ADD COLUMN IF NOT EXISTS expires_ns BIGINT;
ALTER TABLE bulks ADD COLUMN IF NOT EXISTS services VARCHAR[];
ALTER TABLE bulks ADD COLUMN IF NOT EXISTS hosts VARCHAR[];
ALTER TABLE bulks ADD COLUMN IF NOT EXISTS workers VARCHAR[];
ALTER TABLE bulks ADD COLUMN IF NOT EXISTS wait_p95 DOUBLE;
ALTER TABLE bulks ADD COLUMN IF NOT EXISTS work_p95 DOUBLE;
ALTER TABLE bulks ADD COLUMN IF NOT EXISTS tokens_per_s DOUBLE;
-- By which rules (`summaries.RULES`) the rows of `bulks` were made; one row.
CREATE TABLE IF NOT EXISTS bulk_rules (
    mark VARCHAR NOT NULL
);
CREATE TABLE IF NOT EXISTS bulk_changes (
    bulk_id VARCHAR, first_ns BIGINT, last_ns BIGINT, spans BIGINT, logs BIGINT,   -- that came; below 0: that went
    noted_ns BIGINT NOT NULL
);
