-- What Buildbot has of the builds in our record, as its master would have written it.

INSERT INTO buildbot.sourcestamps (id, ss_hash, branch, revision, repository, codebase, project, created_at)
SELECT release.id, md5(release.id::text), release.ref, release.commit, 'https://example.org/p.git', '', release.product,
       extract(epoch FROM release.created_at)::integer
  FROM cleanroom.release;

INSERT INTO buildbot.buildsets (id, external_idstring, reason, submitted_at, complete, complete_at, results)
SELECT attempt.id, 'attempt ' || attempt.id, release.product || ' ' || release.ref || ', attempt 1',
       extract(epoch FROM attempt.queued_at)::integer, 1, extract(epoch FROM attempt.finished_at)::integer,
       CASE attempt.outcome WHEN 'passed' THEN 0 ELSE 2 END
  FROM cleanroom.attempt
  JOIN cleanroom.build ON build.id = attempt.build_id
  JOIN cleanroom.release ON release.id = build.release_id
 WHERE attempt.finished_at IS NOT NULL;

INSERT INTO buildbot.buildset_sourcestamps (id, buildsetid, sourcestampid)
SELECT buildsets.id, buildsets.id, build.release_id
  FROM buildbot.buildsets JOIN cleanroom.attempt ON attempt.id = buildsets.id
  JOIN cleanroom.build ON build.id = attempt.build_id;

INSERT INTO buildbot.buildrequests (id, buildsetid, builderid, complete, results, submitted_at, complete_at)
SELECT buildsets.id, buildsets.id, builders.id, 1, buildsets.results, buildsets.submitted_at, buildsets.complete_at
  FROM buildbot.buildsets
  JOIN cleanroom.attempt ON attempt.id = buildsets.id
  JOIN cleanroom.build ON build.id = attempt.build_id
  JOIN cleanroom.release ON release.id = build.release_id
  JOIN buildbot.builders ON builders.name LIKE release.product || ' %%';

INSERT INTO buildbot.builds
    (id, number, builderid, buildrequestid, workerid, masterid, started_at, complete_at, locks_duration_s, state_string,
     results)
SELECT id, row_number() OVER (PARTITION BY builderid ORDER BY id), builderid, id, (SELECT min(id) FROM buildbot.workers),
       (SELECT min(id) FROM buildbot.masters), submitted_at, complete_at, 0, 'finished', results
  FROM buildbot.buildrequests;

INSERT INTO buildbot.steps (id, number, name, buildid, started_at, complete_at, state_string, results, urls_json, hidden)
SELECT row_number() OVER (), place, (ARRAY['lease', 'source', 'build', 'install', 'regress'])[place + 1], builds.id,
       started_at, complete_at, 'passed', CASE WHEN place = 4 THEN results ELSE 0 END, '[]', (place = 0)::integer
  FROM buildbot.builds, generate_series(0, 4) AS place;
