-- name: server
SELECT current_setting('server_version') AS version, current_setting('server_version_num')::int AS number,
       pg_database_size(current_database()) AS size, extract(epoch FROM clock_timestamp())::float8 AS time,
       pg_postmaster_start_time() AS started_at

-- name: tables
-- Rows as the planner and the statistics know them: counting ten million takes seconds.
SELECT class.relname AS name, greatest(class.reltuples::bigint, stat.n_live_tup, 0) AS rows,
       pg_total_relation_size(class.oid) AS size
  FROM pg_class AS class LEFT JOIN pg_stat_user_tables AS stat ON stat.relid = class.oid
 WHERE class.relnamespace = to_regnamespace('cleanroom') AND class.relkind = 'r'
 ORDER BY 3 DESC, 1

-- name: spoiled
-- The latest attempts that the infrastructure spoiled.
SELECT attempt.id AS attempt, attempt.number, attempt.finished_at, attempt.worker, attempt.isolation, build.target,
       coalesce(release.product, trial.product) AS product, coalesce(release.ref, trial.ref) AS ref,
       trial.purpose, attempt.why
  FROM cleanroom.attempt JOIN cleanroom.build ON build.id = attempt.build_id
  LEFT JOIN cleanroom.release ON release.id = build.release_id
  LEFT JOIN cleanroom.trial ON trial.id = build.trial_id
 WHERE attempt.outcome = 'infrastructure'
 ORDER BY attempt.finished_at DESC LIMIT %(limit)s

-- name: watch_errors
SELECT name, watched_at, watch_error FROM cleanroom.product
 WHERE removed_at IS NULL AND watch_error IS NOT NULL ORDER BY name LIMIT %(limit)s

-- name: addresses
SELECT url FROM cleanroom.product ORDER BY name

-- name: migrations
SELECT number, name, applied_at FROM cleanroom.migration ORDER BY number

-- name: connections
SELECT usename AS role, state, count(*) AS connections FROM pg_stat_activity
 WHERE datname = current_database() GROUP BY 1, 2 ORDER BY 1, 2
