-- The one definition of every number that is derived from what was recorded. `views.py` applies it to each store, also to
-- one in memory and to a file that is open for reading alone. Tables are those of schema.sql; `rules.credible_COLUMN(x)`
-- is absent for a number that nothing can have measured (credible.py). Times are ns since the Unix epoch, durations s.

-- attempts and jobs

-- The name of a worker (workers.py). Stores of before have none: host and process id, which the containers of a host may
-- share.
CREATE OR REPLACE MACRO rules.worker_name(worker, host_name, pid, service_instance_id, service_name) AS
    coalesce(worker, host_name || ':' || pid, service_instance_id, service_name, 'worker');

-- An attempt that has ended is one of three: tried again later ('retried'), 'done', or 'failed'. One that its library
-- retries is not failed, whatever its status.
CREATE OR REPLACE MACRO rules.attempt_state(status, failure_domain, outcome) AS
    CASE WHEN outcome = 'retry' THEN 'retried'
         WHEN status IS DISTINCT FROM 'ERROR' AND failure_domain IS NULL AND coalesce(outcome, 'ok') = 'ok' THEN 'done'
         ELSE 'failed' END;

-- inferences and requests
