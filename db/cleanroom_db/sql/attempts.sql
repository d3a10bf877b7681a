-- name: get
SELECT * FROM cleanroom.attempt WHERE id = %(id)s

-- name: whose
-- What an attempt is of: a release, or a trial and perhaps a release that waits for it.
SELECT build.release_id, build.trial_id, trial.subject
  FROM cleanroom.attempt JOIN cleanroom.build ON build.id = attempt.build_id
  LEFT JOIN cleanroom.trial ON trial.id = build.trial_id
 WHERE attempt.id = %(id)s

-- name: work
SELECT attempt.*, build.release_id, build.trial_id, build.target, build.phases
  FROM cleanroom.attempt JOIN cleanroom.build ON build.id = attempt.build_id
 WHERE attempt.id = %(id)s

-- name: due
(SELECT attempt.*, build.release_id, build.trial_id, build.target, build.phases
   FROM cleanroom.attempt JOIN cleanroom.build ON build.id = attempt.build_id
  WHERE attempt.finished_at IS NULL AND attempt.lease_owner IS NULL AND attempt.not_before <= now()
    AND build.trial_id IS NULL
    AND NOT EXISTS (SELECT FROM cleanroom.release_wait JOIN cleanroom.release ON release.id = release_wait.waits_for
                     WHERE release_wait.release_id = build.release_id
                       AND release.state IN ('waiting', 'building', 'passed'))
  ORDER BY attempt.priority, attempt.not_before, attempt.id
  LIMIT %(limit)s)
UNION ALL
(SELECT attempt.*, build.release_id, build.trial_id, build.target, build.phases
   FROM cleanroom.attempt JOIN cleanroom.build ON build.id = attempt.build_id
  WHERE attempt.finished_at IS NULL AND attempt.lease_owner IS NULL AND attempt.not_before <= now()
    AND build.trial_id IS NOT NULL
  ORDER BY attempt.priority, attempt.not_before, attempt.id
  LIMIT greatest(0, least(%(limit)s, %(trials)s - (
      SELECT count(*) FROM cleanroom.attempt AS busy JOIN cleanroom.build AS its ON its.id = busy.build_id
       WHERE its.trial_id IS NOT NULL AND busy.lease_owner IS NOT NULL AND busy.finished_at IS NULL))))
ORDER BY priority, not_before, id
LIMIT %(limit)s

-- name: lease
UPDATE cleanroom.attempt
   SET lease_owner = %(owner)s, lease_expires_at = now() + make_interval(secs => %(seconds)s),
       started_at = coalesce(started_at, now())
 WHERE id = %(id)s AND finished_at IS NULL AND not_before <= now()
   AND (lease_owner IS NULL OR lease_owner = %(owner)s)

-- name: renew
UPDATE cleanroom.attempt
   SET lease_expires_at = now() + make_interval(secs => %(seconds)s)
 WHERE id = %(id)s AND lease_owner = %(owner)s AND finished_at IS NULL

-- name: describe
UPDATE cleanroom.attempt
   SET worker = coalesce(%(worker)s, worker), isolation = coalesce(%(isolation)s, isolation),
       buildbot_url = coalesce(%(buildbot_url)s, buildbot_url)
 WHERE id = %(id)s AND lease_owner = %(owner)s AND finished_at IS NULL

-- name: finish
UPDATE cleanroom.attempt
   SET outcome = %(outcome)s, why = %(why)s, finished_at = now()
 WHERE id = %(id)s AND finished_at IS NULL
   AND lease_owner IS NOT DISTINCT FROM %(owner)s
   AND (NOT %(expired)s OR lease_expires_at < now())
RETURNING *

-- name: insert_next
INSERT INTO cleanroom.attempt (build_id, number, series_start, priority, not_before)
VALUES (%(build)s, %(number)s, %(series_start)s, %(priority)s, now() + make_interval(secs => %(pause)s))

-- name: went_off_before
-- The phase in which an attempt's guest went off, and the first attempt of its build whose guest did so in the same one.
SELECT phase.name AS phase, earlier.number
  FROM cleanroom.attempt JOIN cleanroom.phase ON phase.attempt_id = attempt.id AND phase.guest_went_off
  JOIN cleanroom.attempt AS earlier ON earlier.build_id = attempt.build_id AND earlier.number < attempt.number
  JOIN cleanroom.phase AS before ON before.attempt_id = earlier.id AND before.guest_went_off
   AND (before.name, before.replay) = (phase.name, phase.replay)
 WHERE attempt.id = %(id)s AND phase.replay = 0
 ORDER BY earlier.number LIMIT 1

-- name: blame_steps
UPDATE cleanroom.step SET outcome = 'failed'
  FROM cleanroom.phase
 WHERE phase.id = step.phase_id AND phase.attempt_id = %(id)s AND phase.guest_went_off AND phase.replay = 0
   AND step.outcome = 'infrastructure'

-- name: blame_phases
UPDATE cleanroom.phase SET outcome = 'failed' WHERE attempt_id = %(id)s AND guest_went_off AND replay = 0

-- name: close_phases
UPDATE cleanroom.phase SET outcome = %(outcome)s, why = %(why)s, finished_at = now()
 WHERE attempt_id = %(id)s AND finished_at IS NULL

-- name: close_steps
UPDATE cleanroom.step SET outcome = %(outcome)s, why = %(why)s
 WHERE outcome IS NULL AND phase_id IN (SELECT id FROM cleanroom.phase WHERE attempt_id = %(id)s)

-- name: expired
SELECT id, lease_owner FROM cleanroom.attempt
 WHERE finished_at IS NULL AND lease_owner IS NOT NULL AND lease_expires_at < now()
 ORDER BY lease_expires_at

-- name: leased_by
SELECT id, lease_owner FROM cleanroom.attempt
 WHERE finished_at IS NULL AND lease_owner LIKE %(prefix)s ESCAPE '\'
 ORDER BY id

-- name: open_of_release
SELECT attempt.id, attempt.lease_owner
  FROM cleanroom.attempt JOIN cleanroom.build ON build.id = attempt.build_id
 WHERE build.release_id = %(release)s AND attempt.finished_at IS NULL

-- name: open_of_trial
SELECT attempt.id, attempt.lease_owner
  FROM cleanroom.attempt JOIN cleanroom.build ON build.id = attempt.build_id
 WHERE build.trial_id = %(trial)s AND attempt.finished_at IS NULL
