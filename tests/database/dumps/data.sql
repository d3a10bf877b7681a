-- A little of everything that a site's record has. Each block can be said from the migration on that it names; nothing
-- here is a real person, product or host.

-- since 0001
INSERT INTO product (name, url, recipe, tag_patterns, branches, watched_at) VALUES
    ('hello', 'https://example.org/hello.git', '{"builder": "deb"}', '{v*}', '{main}', '2030-01-01Z'),
    ('library', 'https://example.org/library.git', NULL, '{*}', '{}', NULL);
INSERT INTO ref_event (id, product, kind, ref, commit, previous_commit, change, tag_kind, tagger, message, signature,
                       tagged_at, recorded_at, state, why, settled_at) OVERRIDING SYSTEM VALUE VALUES
    (1, 'hello', 'tag', 'v1', repeat('a', 40), NULL, 'created', 'annotated', 'Anna <anna@example.org>', 'first', 'good',
     '2030-01-01Z', '2030-01-01Z', 'claimed', '', '2030-01-01Z'),
    (2, 'hello', 'tag', 'v2', repeat('b', 40), NULL, 'created', 'lightweight', NULL, NULL, 'none',
     NULL, '2030-01-02Z', 'claimed', '', '2030-01-02Z'),
    (3, 'hello', 'tag', 'v1', repeat('c', 40), repeat('a', 40), 'moved', 'annotated', NULL, NULL, 'none',
     NULL, '2030-01-03Z', 'refused', 'the tag moved', '2030-01-03Z'),
    (4, 'library', 'commit', repeat('d', 40), repeat('d', 40), NULL, 'created', 'none', NULL, NULL, 'unchecked',
     NULL, '2030-01-04Z', 'recorded', '', NULL);
INSERT INTO release (id, product, ref, commit, kind, version, state, why, hold_reason, ref_event_id, recipe, recipe_digest,
                     channel, requested_by, created_at, finished_at) OVERRIDING SYSTEM VALUE VALUES
    (1, 'hello', 'v1', repeat('a', 40), 'tag', '1.0', 'published', 'published in testing, generation 1', NULL, 1,
     '{"gates": ["builds"]}', 'x', 'testing', 'poll', '2030-01-01Z', '2030-01-01 00:10Z'),
    (2, 'hello', 'v2', repeat('b', 40), 'tag', '2.0', 'held', 'held: to be looked at', 'to be looked at', 2,
     '{}', 'x', 'testing', 'anna', '2030-01-02Z', '2030-01-02 00:10Z');
INSERT INTO build (id, release_id, target, phases) OVERRIDING SYSTEM VALUE VALUES
    (1, 1, 'debian-12/deb', '{build,install}'), (2, 2, 'debian-12/deb', '{build}');
INSERT INTO attempt (id, build_id, number, series_start, outcome, why, not_before, queued_at, started_at, finished_at, worker,
                     isolation) OVERRIDING SYSTEM VALUE VALUES
    (1, 1, 1, 1, 'passed', '', '2030-01-01Z', '2030-01-01Z', '2030-01-01Z', '2030-01-01 00:09Z', 'host-1', 'container'),
    (2, 2, 1, 1, 'failed', 'build: make ended with status 2', '2030-01-02Z', '2030-01-02Z', '2030-01-02Z',
     '2030-01-02 00:09Z', 'host-1', 'kvm');
INSERT INTO phase (id, attempt_id, position, name, outcome, started_at, finished_at, image, image_digest, isolation, network,
                   reset_method, reset_seconds, seconds, command_seconds, tests_passed, tests_failed)
OVERRIDING SYSTEM VALUE VALUES
    (1, 1, 0, 'build', 'passed', '2030-01-01Z', '2030-01-01 00:05Z', 'debian-12', 'd', 'container', 'mirror', 'overlay',
     0.5, 300, 290, 1, 0),
    (2, 2, 0, 'build', 'failed', '2030-01-02Z', '2030-01-02 00:05Z', 'debian-12', 'd', 'kvm', 'mirror', 'boot',
     20, 300, 290, 0, 1);
INSERT INTO step (id, phase_id, position, name, outcome, exit_status, why, started_at, seconds, log_sha256, log_size)
OVERRIDING SYSTEM VALUE VALUES
    (1, 1, 0, 'make', 'passed', 0, '', '2030-01-01Z', 290, repeat('1', 64), 1000),
    (2, 2, 0, 'make', 'failed', 2, 'it ended with status 2', '2030-01-02Z', 290, repeat('2', 64), 2000);
INSERT INTO test_case (id, phase_id, step, name, outcome, seconds, message) OVERRIDING SYSTEM VALUE VALUES
    (1, 1, 'make', 'adds', 'passed', 0.1, ''), (2, 2, 'make', 'adds', 'failed', 0.1, 'it is 5');
INSERT INTO artifact (id, attempt_id, phase, file, sha256, size, kind, package, version, architecture)
OVERRIDING SYSTEM VALUE VALUES
    (1, 1, 'build', 'hello_1.0_amd64.deb', repeat('3', 64), 100, 'deb', 'hello', '1.0', 'amd64');
INSERT INTO generation (number, created_at, switched_at, actor, reason, added) VALUES
    (1, '2030-01-01Z', '2030-01-01 00:11Z', 'publisher', 'hello v1', '[{"name": "hello"}]');
INSERT INTO publication (id, release_id, channel, state, requested_by, requested_at, generation) OVERRIDING SYSTEM VALUE VALUES
    (1, 1, 'testing', 'published', 'master', '2030-01-01Z', 1);
INSERT INTO channel_package (id, channel, target, format, name, version, architecture, file, sha256, built_sha256, size,
                             release_id, added_in) OVERRIDING SYSTEM VALUE VALUES
    (1, 'testing', 'debian-12/deb', 'deb', 'hello', '1.0', 'amd64', 'hello_1.0_amd64.deb', repeat('3', 64), repeat('3', 64),
     100, 1, 1);
INSERT INTO service (name, state, process_id, since, seen_at) VALUES ('refs', 'running', 1, '2030-01-01Z', '2030-01-01Z');
INSERT INTO host (name, state, isolations, processors, memory_mib, seen_at) VALUES
    ('host-1', 'ready', '{container}', 2, 4096, '2030-01-01Z');
INSERT INTO audit (id, at, actor, action, subject, reason) OVERRIDING SYSTEM VALUE VALUES
    (1, '2030-01-02Z', 'anna', 'release hold', 'hello v2', 'to be looked at');

-- since 0002
INSERT INTO comparison (attempt_id, base, against, regressed, phases, names, compared_at) VALUES
    (2, 'published', 1, 1, '{build}', '{"regressed": ["build make adds"]}', '2030-01-02Z');
INSERT INTO gate_result (release_id, gate, state, why, evaluated_at) VALUES (2, 'builds', 'fails', 'build', '2030-01-02Z');
INSERT INTO gate_waiver (id, release_id, gate, actor, reason, waived_at, expires_at) OVERRIDING SYSTEM VALUE VALUES
    (1, 2, 'no-regression', 'anna', 'known', '2030-01-02Z', '2031-01-02Z');
UPDATE release SET approved_by = 'anna', approved_at = '2030-01-01Z' WHERE id = 1;

-- since 0003
INSERT INTO trial (id, purpose, product, ref, commit, kind, recipe, channel, subject, requested_by, created_at, finished_at,
                   outcome) OVERRIDING SYSTEM VALUE VALUES
    (1, 'reproduction', 'hello', 'v1', repeat('a', 40), 'tag', '{}', 'testing', 1, 'master', '2030-01-01Z',
     '2030-01-01 00:20Z', 'passed'),
    (2, 'bisection', 'hello', 'v2', repeat('b', 40), 'tag', '{}', 'testing', NULL, 'anna', '2030-01-02Z', NULL, NULL);
INSERT INTO build (id, trial_id, target, phases) OVERRIDING SYSTEM VALUE VALUES (3, 1, 'debian-12/deb', '{build}');
INSERT INTO attempt (id, build_id, number, series_start, outcome, not_before, queued_at, started_at, finished_at, priority)
OVERRIDING SYSTEM VALUE VALUES
    (3, 3, 1, 1, 'passed', '2030-01-01Z', '2030-01-01Z', '2030-01-01Z', '2030-01-01 00:20Z', 1);

-- since 0004
INSERT INTO test_case (id, phase_id, step, name, outcome, line) OVERRIDING SYSTEM VALUE VALUES
    (3, 2, 'make', 'subtracts', 'skipped', 7);

-- since 0005
INSERT INTO bisection (id, product, target, axis, good, bad, channel, phase, step, test, runs, parallel, requested_by,
                       created_at) OVERRIDING SYSTEM VALUE VALUES
    (1, 'hello', 'debian-12/deb', 'commit', 'v1', 'v2', 'testing', 'build', 'make', 'adds', 1, 2, 'anna', '2030-01-02Z');
INSERT INTO bisection_candidate (bisection_id, position, parents, name, commit, verdict, judged_at) VALUES
    (1, 0, '{}', repeat('a', 40), repeat('a', 40), 'good', '2030-01-02Z'),
    (1, 1, '{0}', repeat('b', 40), repeat('b', 40), NULL, NULL);
INSERT INTO bisection_probe (trial_id, bisection_id, position, run, lane) VALUES (2, 1, 1, 1, 1);

-- since 0006
INSERT INTO package (id, sha256, format, name, version, architecture, relations, read_at) OVERRIDING SYSTEM VALUE VALUES
    (1, repeat('3', 64), 'deb', 'hello', '1.0', 'amd64', 'Package: hello', '2030-01-01Z');
INSERT INTO path (id, digest, path) OVERRIDING SYSTEM VALUE VALUES (1, decode(repeat('ab', 32), 'hex'), '/usr/bin/hello');
INSERT INTO package_file (path_id, size, package_id, mode, type, digest) VALUES (1, 10, 1, 493, 'file', decode(repeat('cd', 32), 'hex'));
INSERT INTO conflict_check (release_id, channel, target, basis, packages, checked_at) VALUES
    (2, 'testing', 'debian-12/deb', 'x', 1, '2030-01-02Z');
INSERT INTO conflict (id, release_id, channel, target, kind, package, other, subject, why) OVERRIDING SYSTEM VALUE VALUES
    (1, 2, 'testing', 'debian-12/deb', 'file', 'hello', 'other', '/usr/bin/hello', 'both have it');

-- since 0007
INSERT INTO product_need (product, target, origin, name) VALUES ('hello', '', 'recipe', 'library');
INSERT INTO release_wait (release_id, waits_for) VALUES (2, 1);
INSERT INTO dependent_choice (release_id, trials, left_out, chosen_at) VALUES (1, '{1}', '{other}', '2030-01-01Z');

-- since 0008
INSERT INTO package_state (digest, packages, first_seen_at) VALUES (repeat('4', 64), '{"libc6": "2.36"}', '2030-01-01Z');
UPDATE phase SET package_state = repeat('4', 64) WHERE id = 1;
INSERT INTO night (id, channel, date, requested_by, started_at, trials) OVERRIDING SYSTEM VALUE VALUES
    (1, 'testing', '2030-01-02', 'master', '2030-01-02Z', '{1}');

-- since 0009
INSERT INTO phase (id, attempt_id, position, name, outcome, started_at, finished_at, replay, alone)
OVERRIDING SYSTEM VALUE VALUES (3, 2, 0, 'build', 'failed', '2030-01-02Z', '2030-01-02 00:06Z', 1, true);
UPDATE phase SET runs = 2, failures = 2 WHERE id = 2;

-- since 0010
INSERT INTO reproduction (attempt_id, trial_id, compared_at) VALUES (1, 1, '2030-01-01Z');
INSERT INTO reproduced_artifact (attempt_id, file, sha256, again_sha256) VALUES
    (1, 'hello_1.0_amd64.deb', repeat('3', 64), repeat('3', 64));

-- since 0011
INSERT INTO repository_request (id, kind, actor, state, requested_at, finished_at) OVERRIDING SYSTEM VALUE VALUES
    (1, 'verify', 'anna', 'done', '2030-01-02Z', '2030-01-02Z');
INSERT INTO channel_release (release_id, channel, added_in) VALUES (1, 'testing', 1) ON CONFLICT DO NOTHING;
INSERT INTO security_fix (release_id, evidence) VALUES (1, 'CVE-2030-0001');

-- since 0012
INSERT INTO union_choice (release_id, channel, trial_id, chosen_at) VALUES (1, 'testing', NULL, '2030-01-01Z');
INSERT INTO union_member (release_id, target, position, package, name, file, sha256, own) VALUES
    (1, 'debian-12/deb', 0, 1, 'hello', 'hello_1.0_amd64.deb', repeat('3', 64), true);

-- since 0013
INSERT INTO signing_key (fingerprint, user_id, public_key, made_at, signs_since) VALUES
    (repeat('A', 40), 'Cleanroom repository', 'a key', '2030-01-01Z', '2030-01-01Z');

-- since 0014
INSERT INTO provenance (sha256, attempt_id, statement_sha256, bill_sha256, signed_by, signed_at) VALUES
    (repeat('3', 64), 1, repeat('5', 64), repeat('6', 64), ARRAY[repeat('A', 40)], '2030-01-01Z');

-- since 0015
INSERT INTO canary (place) SELECT min(id) FROM channel_release;

-- since 0016
INSERT INTO delivery (remote, generation, delivered_at) VALUES ('https://packages.example.org/', 1, '2030-01-01Z');
INSERT INTO delivered_file (remote, place, identity) VALUES ('https://packages.example.org/', 'index.html', 'x');
UPDATE gate_waiver SET channel = 'stable' WHERE id = 1;

-- since 0018
INSERT INTO account (id, name, password, created_at, created_by) OVERRIDING SYSTEM VALUE VALUES
    (1, 'anna', '$argon2id$x', '2030-01-01Z', 'root');
INSERT INTO account_grant (account, role, product, granted_at, granted_by) VALUES
    (1, 'manager', 'hello', '2030-01-01Z', 'root');
INSERT INTO session (secret, account, address, created_at, seen_at) VALUES
    (repeat('7', 64), 1, '192.0.2.1', '2030-01-01Z', '2030-01-01Z');
INSERT INTO api_token (id, account, name, secret, role, created_at, created_by, expires_at) OVERRIDING SYSTEM VALUE VALUES
    (1, 1, 'ci', repeat('8', 64), 'developer', '2030-01-01Z', 'anna', '2031-01-01Z');
INSERT INTO sign_in_failure (id, at, account, address) OVERRIDING SYSTEM VALUE VALUES (1, '2030-01-01Z', 'anna', '192.0.2.1');

-- since 0019
INSERT INTO webhook_delivery (id, forge, delivery, digest, event, product, received_at) OVERRIDING SYSTEM VALUE VALUES
    (1, 'gitea', 'x', repeat('9', 64), 'push', 'hello', '2030-01-01Z');
INSERT INTO look_wish (product, wished_at) VALUES ('hello', '2030-01-01Z');
UPDATE release SET state = 'failed' WHERE id = 2;
UPDATE release SET state = 'held' WHERE id = 2;
INSERT INTO standing (product, channel, regressed, release_id) VALUES ('hello', 'testing', true, 2);
INSERT INTO notification (id, key, change_id, endpoint, event, release_id, content, state, not_before, created_at, settled_at)
OVERRIDING SYSTEM VALUE SELECT
    1, '11111111-1111-1111-1111-111111111111', min(id), 'team', 'regressed', 2, '{}', 'delivered', '2030-01-02Z',
    '2030-01-02Z', '2030-01-02Z' FROM state_change;

-- since 0020
UPDATE host SET places = 2, ready = 1, running = 1, heard_at = '2030-01-01Z' WHERE name = 'host-1';

-- since 0021
INSERT INTO disk (place, free, total, least, low_since, seen_at) VALUES
    ('/var/lib/cleanroom', 1000, 2000, 1500, '2030-01-01Z', '2030-01-02Z');
UPDATE step SET log_removed_at = '2030-01-03Z' WHERE id = 2;
INSERT INTO artifact (id, attempt_id, phase, file, sha256, size, kind, removed_at) OVERRIDING SYSTEM VALUE VALUES
    (2, 1, 'build', 'hello_1.0.buildinfo', repeat('c', 64), 100, 'buildinfo', '2030-01-03Z');

-- since 0022
INSERT INTO worker (name, protocol, problem, attached_at) VALUES ('host-1', 1, '', '2030-01-01Z');

-- since 0024
UPDATE phase SET guest_went_off = true WHERE id = 2;
