-- name: waiting
-- Releases that were built well and wait to be installed together with others, which were not chosen yet.
SELECT release.* FROM cleanroom.release
  JOIN cleanroom.gate_result ON gate_result.release_id = release.id
 WHERE release.finished_at IS NULL AND release.state = 'building'
   AND gate_result.gate = 'union' AND gate_result.state = 'waits'
   AND NOT EXISTS (SELECT FROM cleanroom.union_choice WHERE release_id = release.id AND problem = '')
 ORDER BY release.id

-- name: held
-- Releases that could not be installed together with others, and that no person keeps.
SELECT release.*, union_choice.basis,
       ARRAY(SELECT DISTINCT member.sha256::text FROM cleanroom.union_member AS member
              WHERE member.release_id = release.id AND NOT member.own) AS others
  FROM cleanroom.release
  JOIN cleanroom.union_choice ON union_choice.release_id = release.id AND union_choice.trial_id IS NOT NULL
  JOIN cleanroom.gate_result ON gate_result.release_id = release.id
 WHERE release.state = 'held' AND release.hold_reason IS NULL
   AND gate_result.gate = 'union' AND gate_result.state = 'fails'
 ORDER BY release.id

-- name: beside
-- Releases that are tried before they go into the same channel, and were chosen for.
SELECT other.id FROM cleanroom.release AS other
  JOIN cleanroom.union_choice ON union_choice.release_id = other.id AND union_choice.problem = ''
 WHERE other.state = 'building' AND other.channel = %(channel)s AND other.id <> %(release)s
 ORDER BY other.id

-- name: choose
INSERT INTO cleanroom.union_choice (release_id, channel, trial_id, problem, left_out, note, basis)
VALUES (%(release)s, %(channel)s, %(trial)s, %(problem)s, %(left_out)s, %(note)s, %(basis)s)

-- name: insert_members
INSERT INTO cleanroom.union_member
    (release_id, target, position, package, name, file, sha256, published, own)
VALUES %s

-- name: set_basis
UPDATE cleanroom.union_choice SET basis = %(basis)s WHERE release_id = %(release)s

-- name: forget
DELETE FROM cleanroom.union_choice WHERE release_id = %(release)s

-- name: choice (prepared)
SELECT * FROM cleanroom.union_choice WHERE release_id = %(release)s

-- name: tried (prepared)
-- How each target did in its latest attempt, with the log of the step that failed.
SELECT build.target, attempt.outcome, attempt.why,
       (SELECT step.log_sha256 FROM cleanroom.phase JOIN cleanroom.step ON step.phase_id = phase.id
         WHERE phase.attempt_id = attempt.id AND step.outcome = 'failed'
         ORDER BY step.position DESC LIMIT 1) AS log,
       ARRAY(SELECT member.name FROM cleanroom.union_member AS member
              WHERE member.release_id = %(release)s AND member.target = build.target AND member.own
              ORDER BY member.position) AS own,
       ARRAY(SELECT member.name FROM cleanroom.union_member AS member
              WHERE member.release_id = %(release)s AND member.target = build.target AND NOT member.own
              ORDER BY member.position) AS others
  FROM cleanroom.build
  JOIN cleanroom.attempt ON attempt.build_id = build.id
   AND attempt.number = (SELECT max(number) FROM cleanroom.attempt AS latest WHERE latest.build_id = build.id)
 WHERE build.trial_id = %(trial)s
 ORDER BY build.id

-- name: members
SELECT member.package AS id, member.name, member.sha256, member.file, member.published
  FROM cleanroom.union_choice JOIN cleanroom.union_member AS member ON member.release_id = union_choice.release_id
 WHERE union_choice.trial_id = %(trial)s AND member.target = %(target)s
 ORDER BY member.position
