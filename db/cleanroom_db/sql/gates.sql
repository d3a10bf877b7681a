-- name: release
SELECT release.product, release.ref, release.gates, release.channel, release.kind, release.approved_by, event.signature,
       coalesce(release.recipe ->> 'flaky', 'hold') AS flaky
  FROM cleanroom.release JOIN cleanroom.ref_event AS event ON event.id = release.ref_event_id
 WHERE release.id = %(release)s

-- name: channel
SELECT channel FROM cleanroom.release WHERE id = %(release)s

-- name: builds
-- The latest attempt of each build.
SELECT DISTINCT ON (build.id) build.target, build.phases, attempt.id AS attempt, attempt.outcome, attempt.why
  FROM cleanroom.build JOIN cleanroom.attempt ON attempt.build_id = build.id
 WHERE build.release_id = %(release)s
 ORDER BY build.id, attempt.number DESC

-- name: parts
-- The phases of some attempts, and with a name of their own their steps.
SELECT attempt_id AS attempt, name AS phase, NULL AS step, outcome, why
  FROM cleanroom.phase WHERE attempt_id = ANY(%(attempts)s) AND replay = 0
UNION ALL
SELECT phase.attempt_id, phase.name, step.name, step.outcome, step.why
  FROM cleanroom.phase JOIN cleanroom.step ON step.phase_id = phase.id
 WHERE phase.attempt_id = ANY(%(attempts)s) AND phase.replay = 0

-- name: waivers (prepared)
SELECT gate_waiver.*, expires_at > now() AS active
  FROM cleanroom.gate_waiver WHERE release_id = %(release)s ORDER BY id

-- name: waive
INSERT INTO cleanroom.gate_waiver (release_id, gate, actor, reason, expires_at, channel)
VALUES (%(release)s, %(gate)s, %(actor)s, %(reason)s, %(expires_at)s, %(channel)s)

-- name: forget
DELETE FROM cleanroom.gate_result WHERE release_id = %(release)s

-- name: insert_results
INSERT INTO cleanroom.gate_result (release_id, gate, target, state, why) VALUES %s

-- name: update_result
UPDATE cleanroom.gate_result SET state = %(state)s, why = %(why)s, evaluated_at = now()
 WHERE release_id = %(release)s AND gate = %(gate)s AND target = %(target)s

-- name: results (prepared)
SELECT * FROM cleanroom.gate_result WHERE release_id = %(release)s
 ORDER BY array_position(%(gates)s, gate), gate, target NULLS FIRST
