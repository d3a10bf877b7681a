-- name: insert
INSERT INTO cleanroom.bisection
    (product, target, axis, good, bad, channel, phase, step, test, runs, parallel, requested_by)
VALUES (%(product)s, %(target)s, %(axis)s, %(good)s, %(bad)s, %(channel)s, %(phase)s, %(step)s, %(test)s, %(runs)s,
        %(parallel)s, %(requested_by)s)
RETURNING id

-- name: insert_candidates
INSERT INTO cleanroom.bisection_candidate
    (bisection_id, position, parents, name, commit, conditions, author, dated_at, subject, verdict, why)
VALUES %s

-- name: get
SELECT * FROM cleanroom.bisection WHERE id = %(id)s

-- name: lock
SELECT * FROM cleanroom.bisection WHERE id = %(id)s FOR NO KEY UPDATE

-- name: list
SELECT * FROM cleanroom.bisection
 WHERE %(product)s::text IS NULL OR product = %(product)s
 ORDER BY id DESC LIMIT %(limit)s

-- name: candidates
SELECT * FROM cleanroom.bisection_candidate WHERE bisection_id = %(id)s ORDER BY position

-- name: probes
SELECT probe.*, trial.created_at, trial.finished_at, trial.outcome, trial.why
  FROM cleanroom.bisection_probe AS probe JOIN cleanroom.trial ON trial.id = probe.trial_id
 WHERE probe.bisection_id = %(id)s ORDER BY probe.trial_id

-- name: to_advance
-- The bisections that go on and of which something is new: a trial has ended, or none runs.
SELECT id FROM cleanroom.bisection
 WHERE finished_at IS NULL
   AND (EXISTS (SELECT FROM cleanroom.bisection_probe AS probe JOIN cleanroom.trial ON trial.id = probe.trial_id
                 WHERE probe.bisection_id = bisection.id AND probe.verdict IS NULL AND trial.finished_at IS NOT NULL)
        OR NOT EXISTS (SELECT FROM cleanroom.bisection_probe AS probe
                        WHERE probe.bisection_id = bisection.id AND probe.verdict IS NULL))
 ORDER BY id

-- name: running
SELECT id FROM cleanroom.bisection WHERE finished_at IS NULL ORDER BY id

-- name: insert_probe
INSERT INTO cleanroom.bisection_probe (trial_id, bisection_id, position, run, lane)
VALUES (%(trial)s, %(id)s, %(position)s, %(run)s, %(lane)s)

-- name: lanes_in_use
-- Also those of probes that were just cancelled: a build that is told to stop keeps its builder for a while.
SELECT probe.lane
  FROM cleanroom.bisection_probe AS probe
  JOIN cleanroom.bisection ON bisection.id = probe.bisection_id
  JOIN cleanroom.trial ON trial.id = probe.trial_id
 WHERE bisection.product = %(product)s AND bisection.target = %(target)s
   AND (trial.finished_at IS NULL OR trial.outcome = 'cancelled' AND trial.finished_at > now() - interval '1 minute')

-- name: lanes
SELECT bisection.product, bisection.target, max(probe.lane) AS lanes
  FROM cleanroom.bisection_probe AS probe JOIN cleanroom.bisection ON bisection.id = probe.bisection_id
 GROUP BY bisection.product, bisection.target
 ORDER BY bisection.product, bisection.target

-- name: lane
SELECT lane FROM cleanroom.bisection_probe WHERE trial_id = %(trial)s

-- name: judge_probe
UPDATE cleanroom.bisection_probe SET verdict = %(verdict)s WHERE trial_id = %(trial)s

-- name: judge_candidate
UPDATE cleanroom.bisection_candidate SET verdict = %(verdict)s, why = %(why)s, judged_at = now()
 WHERE bisection_id = %(id)s AND position = %(position)s

-- name: set_suspects
UPDATE cleanroom.bisection SET suspects = %(suspects)s, why = %(why)s WHERE id = %(id)s

-- name: finish
UPDATE cleanroom.bisection SET state = %(state)s, why = %(why)s, suspects = %(suspects)s, finished_at = now()
 WHERE id = %(id)s AND finished_at IS NULL

-- name: seen
-- What a trial says about what is looked for: of its only build the last attempt, there the phase, the step and the
-- case; of several cases of one name the worst.
SELECT attempt.id AS attempt, attempt.outcome, attempt.why, phase.outcome AS phase_outcome, phase.why AS phase_why,
       step.outcome AS step_outcome, step.why AS step_why,
       test_case.outcome AS case_outcome, test_case.message AS case_message, test_case.seconds AS case_seconds,
       test_case.line AS case_line,
       coalesce(log.log_sha256, step.log_sha256) AS log_sha256, exact.why AS packages_why,
       ARRAY(SELECT DISTINCT image_digest FROM cleanroom.phase
              WHERE attempt_id = attempt.id AND image_digest IS NOT NULL) AS image_digests
  FROM cleanroom.build
  JOIN LATERAL (SELECT * FROM cleanroom.attempt WHERE build_id = build.id ORDER BY number DESC LIMIT 1) attempt ON true
  LEFT JOIN cleanroom.phase ON phase.attempt_id = attempt.id AND phase.name = %(phase)s AND phase.replay = 0
  LEFT JOIN LATERAL (
        SELECT * FROM cleanroom.step
         WHERE step.phase_id = phase.id AND (%(step)s::text IS NULL OR step.name = %(step)s)
         ORDER BY step.outcome = 'failed' DESC NULLS LAST, step.position DESC LIMIT 1) step ON true
  LEFT JOIN LATERAL (
        SELECT * FROM cleanroom.test_case
         WHERE test_case.phase_id = phase.id AND test_case.name = %(test)s
         ORDER BY array_position('{failed,regressed,flaky,passed}'::cleanroom.outcome[], test_case.outcome) NULLS LAST
         LIMIT 1) test_case ON true
  LEFT JOIN LATERAL (
        SELECT step.why FROM cleanroom.step JOIN cleanroom.phase ON phase.id = step.phase_id
         WHERE phase.attempt_id = attempt.id AND phase.replay = 0 AND step.name = %(exact)s AND step.outcome <> 'passed'
         LIMIT 1) exact ON true
  LEFT JOIN cleanroom.step AS log ON log.phase_id = phase.id AND log.name = test_case.step
 WHERE build.trial_id = %(trial)s

-- name: failed_builds
-- Where the builds of a release fail: of each the last attempt that says something, there the first phase that does
-- not pass, and the step in it.
SELECT DISTINCT ON (build.id) build.target, phase.name AS phase, step.name AS step, attempt.outcome
  FROM cleanroom.build
  JOIN LATERAL (SELECT * FROM cleanroom.attempt
                 WHERE build_id = build.id AND outcome IN ('passed', 'failed', 'regressed', 'flaky')
                 ORDER BY number DESC LIMIT 1) attempt ON true
  JOIN cleanroom.phase ON phase.attempt_id = attempt.id AND phase.replay = 0 AND phase.outcome = 'failed'
  LEFT JOIN LATERAL (SELECT * FROM cleanroom.step WHERE step.phase_id = phase.id AND step.outcome = 'failed'
                      ORDER BY step.position DESC LIMIT 1) step ON true
 WHERE build.release_id = %(release)s
 ORDER BY build.id, phase.position

-- name: used_images
-- The images with which a product's builds for a target ran, with the times of their first use; of one release those
-- of its last attempt that ran.
SELECT phase.image_digest AS digest, min(phase.started_at) AS at
  FROM cleanroom.phase
  JOIN cleanroom.attempt ON attempt.id = phase.attempt_id
  JOIN cleanroom.build ON build.id = attempt.build_id
 WHERE phase.image = %(image)s AND phase.image_digest IS NOT NULL
   AND (%(release)s::bigint IS NULL OR build.release_id = %(release)s)
 GROUP BY phase.image_digest
 ORDER BY at, digest

-- name: package_lists
-- The lists of the packages that were installed in a product's builds for a target, oldest first.
SELECT artifact.sha256, artifact.size, attempt.id AS attempt, attempt.started_at AS at, build.release_id,
       coalesce(release.ref, trial.ref) AS ref
  FROM cleanroom.artifact
  JOIN cleanroom.attempt ON attempt.id = artifact.attempt_id
  JOIN cleanroom.build ON build.id = attempt.build_id
  LEFT JOIN cleanroom.release ON release.id = build.release_id
  LEFT JOIN cleanroom.trial ON trial.id = build.trial_id
 WHERE artifact.file LIKE '%%.buildinfo' AND build.target = %(target)s
   AND coalesce(release.product, trial.product) = %(product)s
   AND coalesce(trial.purpose <> 'bisection', true)
 ORDER BY attempt.started_at DESC, attempt.id DESC
 LIMIT %(limit)s

-- name: package_states
-- In which states of the packages a product's runs of a phase for a target ended: releases and nights. What other
-- trials had installed was never published, or was chosen by them.
SELECT phase.package_state AS digest, attempt.id AS attempt, phase.started_at AS at, build.release_id,
       coalesce(release.ref, trial.ref) AS ref
  FROM cleanroom.phase
  JOIN cleanroom.attempt ON attempt.id = phase.attempt_id
  JOIN cleanroom.build ON build.id = attempt.build_id
  LEFT JOIN cleanroom.release ON release.id = build.release_id
  LEFT JOIN cleanroom.trial ON trial.id = build.trial_id
 WHERE phase.name = %(phase)s AND phase.replay = 0 AND phase.package_state IS NOT NULL
   AND build.target = %(target)s AND coalesce(release.product, trial.product) = %(product)s
   AND coalesce(trial.purpose = 'nightly', true)
 ORDER BY phase.started_at DESC, attempt.id DESC
 LIMIT %(limit)s

-- name: packages_of
SELECT packages FROM cleanroom.package_state WHERE digest = %(digest)s

-- name: own_packages
SELECT DISTINCT artifact.package
  FROM cleanroom.release
  JOIN cleanroom.build ON build.release_id = release.id
  JOIN cleanroom.attempt ON attempt.build_id = build.id
  JOIN cleanroom.artifact ON artifact.attempt_id = attempt.id
 WHERE release.product = %(product)s AND artifact.package IS NOT NULL
