-- name: heartbeat
INSERT INTO cleanroom.service AS service (name, state, process_id, detail)
VALUES (%(name)s, %(state)s, %(process_id)s, %(detail)s)
ON CONFLICT (name) DO UPDATE
   SET seen_at = now(), process_id = excluded.process_id, detail = excluded.detail, state = excluded.state,
       since = CASE WHEN service.state = excluded.state
                     AND service.process_id IS NOT DISTINCT FROM excluded.process_id
                    THEN service.since ELSE now() END

-- name: list (prepared)
SELECT *, extract(epoch FROM now() - seen_at)::double precision AS silent_seconds
  FROM cleanroom.service ORDER BY name

-- name: host_seen
INSERT INTO cleanroom.host (name, isolations, processors, memory_mib)
VALUES (%(name)s, %(isolations)s, %(processors)s, %(memory_mib)s)
ON CONFLICT (name) DO UPDATE
   SET isolations = excluded.isolations, processors = excluded.processors, memory_mib = excluded.memory_mib,
       seen_at = now()

-- name: guests_seen
UPDATE cleanroom.host SET places = %(places)s, ready = %(ready)s, running = %(running)s, heard_at = now()
 WHERE name = %(name)s

-- name: set_host_state
UPDATE cleanroom.host SET state = %(state)s WHERE name = %(name)s

-- name: lock_host
SELECT host.*, coalesce(worker.problem, '') AS problem
  FROM cleanroom.host LEFT JOIN cleanroom.worker USING (name) WHERE host.name = %(name)s FOR UPDATE OF host

-- name: host
SELECT host.*, coalesce(worker.problem, '') AS problem
  FROM cleanroom.host LEFT JOIN cleanroom.worker USING (name) WHERE host.name = %(name)s

-- name: settle
-- A host that takes no work and has none is drained.
UPDATE cleanroom.host SET state = 'drained'
 WHERE state = 'draining'
   AND NOT EXISTS (SELECT FROM cleanroom.attempt
                    WHERE attempt.worker = host.name AND attempt.finished_at IS NULL AND attempt.lease_owner IS NOT NULL)

-- name: closed
SELECT name FROM cleanroom.host WHERE state <> 'ready'

-- name: hosts (prepared)
SELECT host.*, coalesce(worker.problem, '') AS problem
  FROM cleanroom.host LEFT JOIN cleanroom.worker USING (name) ORDER BY host.name
