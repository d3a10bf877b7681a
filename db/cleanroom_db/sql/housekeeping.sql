-- name: unneeded_logs
-- Of these digests those that no step needs: all that printed it ended long ago, and are not published.
SELECT asked.digest FROM unnest(%(digests)s::text[]) AS asked (digest)
 WHERE NOT EXISTS (
    SELECT FROM cleanroom.step
      JOIN cleanroom.phase ON phase.id = step.phase_id
      JOIN cleanroom.attempt ON attempt.id = phase.attempt_id
      JOIN cleanroom.build ON build.id = attempt.build_id
      LEFT JOIN cleanroom.trial ON trial.id = build.trial_id
      LEFT JOIN cleanroom.release ON release.id = coalesce(build.release_id, trial.subject)
     WHERE step.log_sha256 = asked.digest AND step.log_removed_at IS NULL
       AND (attempt.finished_at IS NULL OR attempt.finished_at > now() - make_interval(secs => %(age)s)
            OR release.state IN ('waiting', 'building', 'passed', 'held')
            OR EXISTS (SELECT FROM cleanroom.channel_release AS place
                         LEFT JOIN cleanroom.generation AS gone ON gone.number = place.removed_in
                        WHERE place.release_id = build.release_id
                          AND (place.removed_in IS NULL OR place.removed_in > %(oldest)s OR gone.switched_at IS NULL))))

-- name: unneeded_artifacts
-- The same of files. What was signed about a package stays as long as a generation that stays has the package.
SELECT asked.digest FROM unnest(%(digests)s::text[]) AS asked (digest)
 WHERE NOT EXISTS (
    SELECT FROM cleanroom.artifact
      JOIN cleanroom.attempt ON attempt.id = artifact.attempt_id
      JOIN cleanroom.build ON build.id = attempt.build_id
      LEFT JOIN cleanroom.trial ON trial.id = build.trial_id
      LEFT JOIN cleanroom.release ON release.id = coalesce(build.release_id, trial.subject)
     WHERE artifact.sha256 = asked.digest AND artifact.removed_at IS NULL
       AND (attempt.finished_at IS NULL OR attempt.finished_at > now() - make_interval(secs => %(age)s)
            OR release.state IN ('waiting', 'building', 'passed', 'held')
            OR EXISTS (SELECT FROM cleanroom.channel_release AS place
                         LEFT JOIN cleanroom.generation AS gone ON gone.number = place.removed_in
                        WHERE place.release_id = build.release_id
                          AND (place.removed_in IS NULL OR place.removed_in > %(oldest)s OR gone.switched_at IS NULL))))
   AND NOT EXISTS (
    SELECT FROM cleanroom.channel_package AS package
      LEFT JOIN cleanroom.generation AS gone ON gone.number = package.removed_in
     WHERE (package.removed_in IS NULL OR package.removed_in > %(oldest)s OR gone.switched_at IS NULL)
       AND (package.built_sha256 = asked.digest
            OR package.sha256 IN (SELECT sha256 FROM cleanroom.provenance
                                   WHERE statement_sha256 = asked.digest OR bill_sha256 = asked.digest)))

-- name: oldest_generation
-- The oldest of the generations that stay for a rollback.
SELECT coalesce(min(number), 0) FROM (
    SELECT number FROM cleanroom.generation WHERE switched_at IS NOT NULL ORDER BY number DESC LIMIT %(keep)s) AS kept

-- name: note_logs
-- Not of attempts that are younger: one of those may just have brought the same content again, and then it stays.
UPDATE cleanroom.step SET log_removed_at = now()
  FROM cleanroom.phase JOIN cleanroom.attempt ON attempt.id = phase.attempt_id
 WHERE phase.id = step.phase_id AND step.log_sha256 = ANY(%(digests)s) AND step.log_removed_at IS NULL
   AND attempt.finished_at <= now() - make_interval(secs => %(age)s)

-- name: note_artifacts
UPDATE cleanroom.artifact SET removed_at = now()
  FROM cleanroom.attempt
 WHERE attempt.id = artifact.attempt_id AND artifact.sha256 = ANY(%(digests)s) AND artifact.removed_at IS NULL
   AND attempt.finished_at <= now() - make_interval(secs => %(age)s)

-- name: count_events
SELECT count(*) FROM cleanroom.ref_event AS event
 WHERE event.kind = 'tag' AND event.state IN ('ignored', 'refused')
   AND event.settled_at < now() - make_interval(secs => %(age)s)
   AND EXISTS (SELECT FROM cleanroom.ref_event AS later
                WHERE later.product = event.product AND later.kind = event.kind AND later.ref = event.ref
                  AND later.id > event.id AND (later.commit IS NOT NULL OR later.change = 'deleted'))

-- name: remove_events
-- Never the last event of a ref: that is what was last seen of it. A commit has one event.
DELETE FROM cleanroom.ref_event WHERE id IN (
    SELECT event.id FROM cleanroom.ref_event AS event
     WHERE event.kind = 'tag' AND event.state IN ('ignored', 'refused')
       AND event.settled_at < now() - make_interval(secs => %(age)s)
       AND EXISTS (SELECT FROM cleanroom.ref_event AS later
                    WHERE later.product = event.product AND later.kind = event.kind AND later.ref = event.ref
                      AND later.id > event.id AND (later.commit IS NOT NULL OR later.change = 'deleted'))
     ORDER BY event.id LIMIT %(limit)s)

-- name: count_notifications
SELECT count(*) FROM cleanroom.notification WHERE settled_at < now() - make_interval(secs => %(age)s)

-- name: remove_notifications
DELETE FROM cleanroom.notification WHERE id IN (
    SELECT id FROM cleanroom.notification WHERE settled_at < now() - make_interval(secs => %(age)s)
     ORDER BY id LIMIT %(limit)s)

-- name: count_changes
SELECT count(*) FROM cleanroom.state_change AS change WHERE told_at < now() - make_interval(secs => %(age)s)
   AND NOT EXISTS (SELECT FROM cleanroom.notification WHERE change_id = change.id
                      AND (settled_at IS NULL OR settled_at >= now() - make_interval(secs => %(age)s)))

-- name: remove_changes
DELETE FROM cleanroom.state_change WHERE id IN (
    SELECT id FROM cleanroom.state_change AS change WHERE told_at < now() - make_interval(secs => %(age)s)
       AND NOT EXISTS (SELECT FROM cleanroom.notification WHERE change_id = change.id)
     ORDER BY id LIMIT %(limit)s)

-- name: count_sessions
SELECT count(*) FROM cleanroom.session
 WHERE seen_at < now() - make_interval(secs => %(idle)s) OR created_at < now() - make_interval(secs => %(age)s)

-- name: buildbot_there
SELECT to_regclass('buildbot.buildsets') IS NOT NULL

-- name: count_buildbot
SELECT count(*) FROM buildbot.buildsets AS asked
 WHERE asked.complete = 1 AND asked.complete_at < extract(epoch FROM now()) - %(age)s
   AND NOT EXISTS (SELECT FROM buildbot.buildrequests AS request JOIN buildbot.builds AS build
                       ON build.buildrequestid = request.id
                    WHERE request.buildsetid = asked.id
                      AND NOT EXISTS (SELECT FROM buildbot.builds AS later
                                       WHERE later.builderid = build.builderid AND later.number > build.number))

-- name: remove_buildbot
-- With requests, builds, steps and logs. The last build of a builder stays: the next one is numbered after it, and the
-- record has addresses with these numbers.
DELETE FROM buildbot.buildsets WHERE id IN (
    SELECT asked.id FROM buildbot.buildsets AS asked
     WHERE asked.complete = 1 AND asked.complete_at < extract(epoch FROM now()) - %(age)s
       AND NOT EXISTS (SELECT FROM buildbot.buildrequests AS request JOIN buildbot.builds AS build
                           ON build.buildrequestid = request.id
                        WHERE request.buildsetid = asked.id
                          AND NOT EXISTS (SELECT FROM buildbot.builds AS later
                                           WHERE later.builderid = build.builderid AND later.number > build.number))
     ORDER BY asked.id LIMIT %(limit)s)

-- name: remove_sources
DELETE FROM buildbot.sourcestamps WHERE id IN (
    SELECT source.id FROM buildbot.sourcestamps AS source
     WHERE created_at < extract(epoch FROM now()) - %(age)s
       AND NOT EXISTS (SELECT FROM buildbot.buildset_sourcestamps AS used WHERE used.sourcestampid = source.id)
       AND NOT EXISTS (SELECT FROM buildbot.changes WHERE changes.sourcestampid = source.id)
     ORDER BY source.id LIMIT %(limit)s)

-- name: note_disk
INSERT INTO cleanroom.disk AS disk (place, free, total, least, low_since)
VALUES (%(place)s, %(free)s, %(total)s, %(least)s, CASE WHEN %(low)s THEN now() END)
ON CONFLICT (place) DO UPDATE
   SET free = excluded.free, total = excluded.total, least = excluded.least, seen_at = now(),
       low_since = CASE WHEN %(low)s THEN coalesce(disk.low_since, now()) END

-- name: disks
SELECT place, free, total, least, low_since, seen_at FROM cleanroom.disk ORDER BY place
