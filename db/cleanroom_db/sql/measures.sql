-- What is counted for monitoring. Counters only grow, because no row that they count is ever deleted.

-- name: releases
SELECT state, count(*) AS number FROM cleanroom.release WHERE finished_at IS NULL OR state IN ('passed', 'held')
 GROUP BY state

-- name: waiting
SELECT count(*) FILTER (WHERE lease_owner IS NULL) AS waiting, count(*) FILTER (WHERE lease_owner IS NOT NULL) AS running,
       coalesce(extract(epoch FROM now() - min(queued_at) FILTER (WHERE lease_owner IS NULL AND not_before <= now())),
                0)::double precision AS longest
  FROM cleanroom.attempt WHERE finished_at IS NULL

-- name: attempts
SELECT outcome, count(*) AS number FROM cleanroom.attempt WHERE outcome IS NOT NULL GROUP BY outcome

-- name: phases
-- How many phases of a name took at most how long: the place among the bounds, each of which is still within; that is
-- why both are asked for with their signs turned.
SELECT name AS label, cardinality(%(bounds)s::double precision[]) - width_bucket(-seconds, %(bounds)s::double precision[]) AS place, count(*) AS number,
       sum(seconds) AS seconds
  FROM cleanroom.phase WHERE seconds IS NOT NULL GROUP BY 1, 2

-- name: resets
SELECT isolation AS label, cardinality(%(bounds)s::double precision[]) - width_bucket(-reset_seconds, %(bounds)s::double precision[]) AS place, count(*) AS number,
       sum(reset_seconds) AS seconds
  FROM cleanroom.phase WHERE reset_seconds IS NOT NULL AND isolation IS NOT NULL GROUP BY 1, 2

-- name: publications
SELECT channel, count(*) AS number FROM cleanroom.channel_release
  JOIN cleanroom.generation ON generation.number = channel_release.added_in AND generation.switched_at IS NOT NULL
 GROUP BY channel

-- name: generation
SELECT coalesce(max(number), 0) AS number FROM cleanroom.generation WHERE switched_at IS NOT NULL

-- name: notifications
SELECT state, count(*) AS number FROM cleanroom.notification GROUP BY state

-- name: services
SELECT name, extract(epoch FROM now() - seen_at)::double precision AS silent FROM cleanroom.service

-- name: hosts
SELECT host.*, coalesce(worker.problem, '') AS problem,
       extract(epoch FROM now() - host.seen_at)::double precision AS silent
  FROM cleanroom.host LEFT JOIN cleanroom.worker USING (name)
