-- name: waiting
-- Releases that were built well and wait to be tried with their dependents, which were not chosen yet.
SELECT release.* FROM cleanroom.release
  JOIN cleanroom.gate_result ON gate_result.release_id = release.id
 WHERE release.finished_at IS NULL AND release.state = 'building'
   AND gate_result.gate = 'dependents' AND gate_result.state = 'waits'
   AND NOT EXISTS (SELECT FROM cleanroom.dependent_choice WHERE release_id = release.id)
 ORDER BY release.id

-- name: published
-- The release of each of some products that a channel published last, with the targets for which it was built.
SELECT DISTINCT ON (release.product) release.*,
       ARRAY(SELECT build.target FROM cleanroom.build WHERE build.release_id = release.id ORDER BY build.target) AS targets
  FROM cleanroom.release
  JOIN cleanroom.publication ON publication.release_id = release.id AND publication.state = 'published'
  JOIN cleanroom.product ON product.name = release.product AND product.removed_at IS NULL
 WHERE (%(products)s::text[] IS NULL OR release.product = ANY(%(products)s)) AND publication.channel = %(channel)s
   AND release.state = 'published'
 ORDER BY release.product, release.id DESC

-- name: targets
SELECT target FROM cleanroom.build WHERE release_id = %(release)s ORDER BY target

-- name: choose
INSERT INTO cleanroom.dependent_choice (release_id, trials, left_out)
VALUES (%(release)s, %(trials)s, %(left_out)s)

-- name: choice
SELECT * FROM cleanroom.dependent_choice WHERE release_id = %(release)s

-- name: forget
DELETE FROM cleanroom.dependent_choice WHERE release_id = %(release)s

-- name: tried
-- Each trial with the phases in which its latest attempts failed, and whether these failed before as well, with what
-- was published: in the last nightly trial of the product, or else in the build of the release itself.
SELECT trial.product, trial.ref, trial.outcome, trial.why, build.target, phase.name AS phase, phase.why AS phase_why,
       coalesce(
           (SELECT before.outcome IN ('failed', 'regressed')
              FROM cleanroom.trial AS nightly
              JOIN cleanroom.build AS its ON its.trial_id = nightly.id AND its.target = build.target
              JOIN cleanroom.attempt AS run ON run.build_id = its.id
              JOIN cleanroom.phase AS before
                ON before.attempt_id = run.id AND before.name = phase.name AND before.replay = 0
             WHERE nightly.purpose = 'nightly' AND nightly.product = trial.product AND nightly.ref = trial.ref
               AND nightly.channel = trial.channel AND before.outcome IN ('passed', 'failed', 'regressed')
             ORDER BY nightly.id DESC, run.number DESC LIMIT 1),
           (SELECT before.outcome IN ('failed', 'regressed')
              FROM cleanroom.release
              JOIN cleanroom.build AS its ON its.release_id = release.id AND its.target = build.target
              JOIN cleanroom.attempt AS run ON run.build_id = its.id
              JOIN cleanroom.phase AS before
                ON before.attempt_id = run.id AND before.name = phase.name AND before.replay = 0
             WHERE release.product = trial.product AND release.ref = trial.ref
               AND before.outcome IN ('passed', 'failed', 'regressed')
             ORDER BY run.number DESC LIMIT 1),
           false) AS failed_before
  FROM cleanroom.trial
  LEFT JOIN cleanroom.build ON build.trial_id = trial.id
  LEFT JOIN cleanroom.attempt ON attempt.build_id = build.id
   AND attempt.number = (SELECT max(number) FROM cleanroom.attempt AS latest WHERE latest.build_id = build.id)
  LEFT JOIN cleanroom.phase
    ON phase.attempt_id = attempt.id AND phase.replay = 0 AND phase.outcome IN ('failed', 'regressed')
 WHERE trial.id = ANY(%(trials)s)
 ORDER BY trial.id, build.target, phase.position

-- name: candidates
-- The packages of a release's latest attempts that belong into guests of an image.
SELECT artifact.file, artifact.sha256
  FROM cleanroom.build
  JOIN cleanroom.attempt ON attempt.build_id = build.id
   AND attempt.number = (SELECT max(number) FROM cleanroom.attempt AS latest WHERE latest.build_id = build.id)
  JOIN cleanroom.artifact ON artifact.attempt_id = attempt.id
 WHERE build.release_id = %(release)s AND split_part(build.target, '/', 1) = %(image)s
   AND artifact.kind IN ('deb', 'rpm')
 ORDER BY artifact.file
