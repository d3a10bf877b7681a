-- A large record, as if it had been recorded: every release has one build with three phases and two artifacts, compared
-- with the release before; of its tests one of 200 fails, and of the releases one of seven. Each of the others is
-- published with a package, which is signed and was tried by a consumer. The last eight run.

-- Nobody listens, and what is made here is right: so many rows are neither told of nor looked at one by one.
ALTER TABLE cleanroom.release DISABLE TRIGGER USER;
ALTER TABLE cleanroom.ref_event DISABLE TRIGGER USER;
ALTER TABLE cleanroom.attempt DISABLE TRIGGER USER;
ALTER TABLE cleanroom.phase DISABLE TRIGGER USER;
ALTER TABLE cleanroom.step DISABLE TRIGGER USER;
ALTER TABLE cleanroom.publication DISABLE TRIGGER USER;
ALTER TABLE cleanroom.test_case DROP CONSTRAINT test_case_phase_id_fkey;
DROP INDEX cleanroom.test_case_name;
DROP INDEX cleanroom.test_case_failing;

INSERT INTO cleanroom.product (name, url)
SELECT format('product-%%s', n), 'https://example.org/p.git' FROM generate_series(1, %(products)s) AS n;

INSERT INTO cleanroom.ref_event (product, ref, commit, state, recorded_at, settled_at)
SELECT format('product-%%s', 1 + n %% %(products)s), format('v%%s', n), lpad(to_hex(n), 40, '0'), 'claimed',
       now() - (%(releases)s - n) * interval '1 minute', now() - (%(releases)s - n) * interval '1 minute'
  FROM generate_series(1, %(releases)s) AS n;

INSERT INTO cleanroom.release
    (product, ref, commit, kind, version, state, why, ref_event_id, recipe, recipe_digest, channel, requested_by,
     created_at, finished_at)
SELECT product, ref, commit, 'tag', '1.' || id,
       CASE WHEN id %% 7 = 0 THEN 'failed' ELSE 'published' END::cleanroom.release_state,
       CASE WHEN id %% 7 = 0 THEN 'debian-12/deb: regress: 1 of 100 tests failed' ELSE 'published in testing' END,
       id, '{}', '', CASE WHEN id %% 10 = 0 THEN 'snapshots' ELSE 'testing' END, 'hook', recorded_at,
       recorded_at + interval '3 minutes'
  FROM cleanroom.ref_event ORDER BY id;

INSERT INTO cleanroom.build (release_id, target, phases)
SELECT id, 'debian-12/deb', '{build,install,regress}' FROM cleanroom.release ORDER BY id;

INSERT INTO cleanroom.attempt
    (build_id, number, series_start, outcome, queued_at, started_at, finished_at, worker)
SELECT build.id, 1, 1, CASE WHEN release.state = 'failed' THEN 'failed' ELSE 'passed' END::cleanroom.outcome,
       release.created_at, release.created_at, release.finished_at, 'host'
  FROM cleanroom.build JOIN cleanroom.release ON release.id = build.release_id ORDER BY build.id;

INSERT INTO cleanroom.phase
    (attempt_id, position, name, outcome, started_at, finished_at, image, image_digest, isolation, network, reset_method,
     reset_seconds, seconds, command_seconds, tests_passed)
SELECT attempt.id, place, (ARRAY['build', 'install', 'regress'])[place + 1], attempt.outcome, started_at, finished_at,
       'debian-12', repeat('d', 64), 'container', 'mirror', 'overlay', 0.02 + random() / 10, 20 + random() * 40, 20,
       CASE WHEN place = 2 THEN %(cases)s ELSE 0 END
  FROM cleanroom.attempt, generate_series(0, 2) AS place ORDER BY attempt.id, place;

INSERT INTO cleanroom.step (phase_id, position, name, outcome, exit_status, seconds)
SELECT id, place, format('step-%%s', place), 'passed', 0, 3
  FROM cleanroom.phase, generate_series(0, 2) AS place ORDER BY id, place;

INSERT INTO cleanroom.test_case (phase_id, step, name, outcome, seconds)
SELECT id, 'step-2', format('suite-%%s/case %%s', n %% 10, n),
       (CASE WHEN (id + n) %% 200 = 0 THEN 'failed' ELSE 'passed' END)::cleanroom.outcome, 0.01
  FROM cleanroom.phase, generate_series(1, %(cases)s) AS n WHERE name = 'regress' ORDER BY id;

UPDATE cleanroom.phase SET tests_failed = 1, tests_passed = tests_passed - 1
 WHERE name = 'regress' AND id %% 200 >= 200 - %(cases)s;

CREATE INDEX test_case_name ON cleanroom.test_case (phase_id, (md5(name)::uuid));
CREATE INDEX test_case_failing ON cleanroom.test_case (phase_id, id) WHERE outcome NOT IN ('passed', 'skipped');

INSERT INTO cleanroom.gate_result (release_id, gate, state, why)
SELECT id, 'builds', 'holds', 'debian-12/deb passed' FROM cleanroom.release;

INSERT INTO cleanroom.generation (number, created_at, switched_at, actor, reason)
SELECT n, now() - (1001 - n) * interval '100 minutes', now() - (1001 - n) * interval '100 minutes', 'publisher',
       'releases'
  FROM generate_series(1, 1000) AS n;

INSERT INTO cleanroom.channel_release (release_id, channel, added_in)
SELECT id, channel, 1 + id %% 1000 FROM cleanroom.release WHERE state = 'published';

INSERT INTO cleanroom.publication (release_id, channel, state, requested_by, generation)
SELECT release_id, channel, 'published', 'master', added_in FROM cleanroom.channel_release;

INSERT INTO cleanroom.artifact (attempt_id, phase, file, sha256, size, kind, package, version, architecture)
SELECT attempt.id, 'build', format('%%s_%%s_%%s.deb', name, release.version, architecture),
       lpad(to_hex(attempt.id * 2 + (architecture = 'all')::integer), 64, '0'), 20000, 'deb', name, release.version,
       architecture
  FROM cleanroom.attempt
  JOIN cleanroom.build ON build.id = attempt.build_id
  JOIN cleanroom.release ON release.id = build.release_id
 CROSS JOIN LATERAL (VALUES (release.product, 'amd64'), (release.product || '-doc', 'all')) AS made (name, architecture)
 ORDER BY attempt.id;

INSERT INTO cleanroom.comparison (attempt_id, base, against, regressed, still_failing, same, names)
SELECT id, base::cleanroom.comparison_base, CASE WHEN id > %(products)s THEN id - %(products)s END, 1, 1, 98,
       '{"regressed": ["regress step-2 suite-1/case 1"], "still_failing": ["regress step-2 suite-2/case 2"]}'
  FROM cleanroom.attempt, (VALUES ('published'), ('previous')) AS bases (base) ORDER BY id;

INSERT INTO cleanroom.channel_package
    (channel, target, format, name, version, architecture, file, sha256, built_sha256, size, release_id, added_in)
SELECT there.channel, 'debian-12/deb', 'deb', package, version, architecture, file, sha256, sha256, size,
       there.release_id, there.added_in
  FROM cleanroom.channel_release AS there
  JOIN cleanroom.build ON build.release_id = there.release_id
  JOIN cleanroom.attempt ON attempt.build_id = build.id
  JOIN cleanroom.artifact ON artifact.attempt_id = attempt.id AND artifact.architecture = 'amd64';

INSERT INTO cleanroom.provenance (sha256, attempt_id, statement_sha256, bill_sha256, signed_by)
SELECT sha256, attempt_id, sha256, sha256, '{ABCDEF}' FROM cleanroom.artifact;

-- What consumers did.
INSERT INTO cleanroom.trial
    (purpose, product, ref, commit, kind, recipe, channel, subject, requested_by, created_at, finished_at, outcome)
SELECT 'canary', product, ref, commit, kind, '{}', release.channel, release.id, 'publisher', finished_at,
       finished_at + interval '1 minute', 'passed'
  FROM cleanroom.release JOIN cleanroom.channel_release AS there ON there.release_id = release.id ORDER BY there.id;
INSERT INTO cleanroom.canary (place, trial_id)
SELECT there.id, trial.id
  FROM cleanroom.trial JOIN cleanroom.channel_release AS there ON there.release_id = trial.subject;
INSERT INTO cleanroom.build (trial_id, target, phases)
SELECT id, 'debian-12/deb', '{install,upgrade}' FROM cleanroom.trial ORDER BY id;
INSERT INTO cleanroom.attempt (build_id, number, series_start, outcome, queued_at, started_at, finished_at, worker)
SELECT build.id, 1, 1, 'passed', trial.created_at, trial.created_at, trial.finished_at, 'host'
  FROM cleanroom.build JOIN cleanroom.trial ON trial.id = build.trial_id ORDER BY build.id;
INSERT INTO cleanroom.phase
    (attempt_id, position, name, outcome, started_at, finished_at, image, image_digest, isolation, network, reset_method,
     reset_seconds, seconds, command_seconds)
SELECT attempt.id, place, (ARRAY['install', 'upgrade'])[place + 1], 'passed', started_at, finished_at,
       'debian-12', repeat('d', 64), 'container', 'mirror', 'overlay', 0.02, 20, 20
  FROM cleanroom.attempt JOIN cleanroom.build ON build.id = attempt.build_id, generate_series(0, 1) AS place
 WHERE build.trial_id IS NOT NULL ORDER BY attempt.id, place;

UPDATE cleanroom.attempt
   SET outcome = NULL, finished_at = NULL, lease_owner = 'w', lease_expires_at = now() + interval '1 day',
       started_at = now()
 WHERE id BETWEEN %(releases)s - 7 AND %(releases)s;
UPDATE cleanroom.phase SET outcome = NULL, finished_at = NULL
 WHERE attempt_id BETWEEN %(releases)s - 7 AND %(releases)s AND position = 2;
UPDATE cleanroom.release SET state = 'building', finished_at = NULL WHERE id > %(releases)s - 8;

ALTER TABLE cleanroom.release ENABLE TRIGGER USER;
ALTER TABLE cleanroom.ref_event ENABLE TRIGGER USER;
ALTER TABLE cleanroom.attempt ENABLE TRIGGER USER;
ALTER TABLE cleanroom.phase ENABLE TRIGGER USER;
ALTER TABLE cleanroom.step ENABLE TRIGGER USER;
ALTER TABLE cleanroom.publication ENABLE TRIGGER USER;
ANALYZE;
