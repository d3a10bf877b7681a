-- name: begin
INSERT INTO cleanroom.generation (number, actor, reason)
VALUES (greatest(%(at_least)s, (SELECT coalesce(max(number), 0) + 1 FROM cleanroom.generation)),
        %(actor)s, %(reason)s)
RETURNING *

-- name: unswitched
SELECT * FROM cleanroom.generation WHERE switched_at IS NULL

-- name: current
SELECT * FROM cleanroom.generation WHERE switched_at IS NOT NULL ORDER BY number DESC LIMIT 1

-- name: history
SELECT * FROM cleanroom.generation WHERE switched_at IS NOT NULL ORDER BY number DESC LIMIT %(limit)s

-- name: add_packages
INSERT INTO cleanroom.channel_package
    (channel, target, format, name, version, architecture, file, sha256, built_sha256, size, release_id, added_in)
VALUES %s

-- name: bring_back
INSERT INTO cleanroom.channel_package
    (channel, target, format, name, version, architecture, file, sha256, built_sha256, size, release_id, added_in)
SELECT channel, target, format, name, version, architecture, file, sha256, built_sha256, size, release_id, %(number)s
  FROM cleanroom.channel_package WHERE id = ANY(%(ids)s) ORDER BY id

-- name: remove_packages
UPDATE cleanroom.channel_package SET removed_in = %(number)s WHERE id = ANY(%(ids)s) AND removed_in IS NULL

-- name: add_releases
INSERT INTO cleanroom.channel_release (release_id, channel, added_in) VALUES %s ON CONFLICT DO NOTHING

-- name: add_published
INSERT INTO cleanroom.channel_release (release_id, channel, added_in)
SELECT release_id, channel, %(number)s FROM cleanroom.publication WHERE id = ANY(%(ids)s) AND state = 'pending'
ON CONFLICT DO NOTHING

-- name: remove_releases
UPDATE cleanroom.channel_release SET removed_in = %(number)s, removal = %(removal)s, why = %(why)s
 WHERE id = ANY(%(ids)s) AND removed_in IS NULL

-- name: attach_request
UPDATE cleanroom.repository_request SET generation = %(number)s WHERE id = %(id)s AND state = 'pending'

-- name: withdraw_packages
-- Also those that are there no more: a rollback would bring them back.
UPDATE cleanroom.channel_package SET withdrawn_by = %(request)s
 WHERE release_id = %(release)s AND withdrawn_by IS NULL
   AND channel IN (SELECT channel FROM cleanroom.channel_release
                    WHERE removed_in = %(number)s AND release_id = %(release)s)

-- name: describe
UPDATE cleanroom.generation
   SET added = (SELECT coalesce(jsonb_agg(package ORDER BY package.channel, package.file), '[]')
                  FROM (SELECT channel, target, format, name, version, architecture, file
                          FROM cleanroom.channel_package WHERE added_in = %(number)s) AS package),
       removed = (SELECT coalesce(jsonb_agg(package ORDER BY package.channel, package.file), '[]')
                    FROM (SELECT channel, target, format, name, version, architecture, file
                            FROM cleanroom.channel_package WHERE removed_in = %(number)s) AS package)
 WHERE number = %(number)s

-- name: switched
UPDATE cleanroom.generation SET switched_at = now() WHERE number = %(number)s AND switched_at IS NULL

-- name: rollback
-- Whether a generation that is about to be noted goes back to an earlier one, and from which.
SELECT request.generation AS number, request.target,
       (SELECT max(number) FROM cleanroom.generation WHERE switched_at IS NOT NULL) AS current,
       format('taken back by %%s (to generation %%s): %%s', request.actor, request.target, request.reason) AS why
  FROM cleanroom.repository_request AS request
 WHERE request.generation = %(number)s AND request.kind = 'rollback' AND request.state = 'pending'

-- name: detach_publications
UPDATE cleanroom.publication SET generation = NULL WHERE generation = %(number)s AND state = 'pending'

-- name: restore_packages
UPDATE cleanroom.channel_package SET removed_in = NULL WHERE removed_in = %(number)s

-- name: discard_packages
DELETE FROM cleanroom.channel_package WHERE added_in = %(number)s

-- name: discard_releases
DELETE FROM cleanroom.channel_release WHERE added_in = %(number)s

-- name: restore_releases
UPDATE cleanroom.channel_release SET removed_in = NULL, removal = NULL, why = '' WHERE removed_in = %(number)s

-- name: restore_withdrawn
UPDATE cleanroom.channel_package SET withdrawn_by = NULL
  FROM cleanroom.repository_request AS request
 WHERE request.id = channel_package.withdrawn_by AND request.generation = %(number)s AND request.state = 'pending'

-- name: restored
UPDATE cleanroom.publication SET state = 'published', why = '', generation = %(number)s
  FROM cleanroom.channel_release AS there
 WHERE there.added_in = %(number)s AND there.release_id = publication.release_id
   AND there.channel = publication.channel AND publication.state IN ('removed', 'refused')

-- name: removed
UPDATE cleanroom.publication
   SET state = (CASE gone.removal WHEN 'withdrawal' THEN 'withdrawn' WHEN 'canary' THEN 'refused'
                     ELSE 'removed' END)::cleanroom.publication_state,
       why = gone.why
  FROM cleanroom.channel_release AS gone
 WHERE gone.removed_in = %(number)s AND gone.release_id = publication.release_id
   AND gone.channel = publication.channel AND publication.state = 'published'

-- name: explain_releases
-- One sentence for each release that came or went: where it is, and why it is where it is no more.
WITH place AS (
    SELECT DISTINCT ON (release_id, channel) *
      FROM cleanroom.channel_release
     WHERE release_id IN (SELECT release_id FROM cleanroom.channel_release
                           WHERE added_in = %(number)s OR removed_in = %(number)s)
     ORDER BY release_id, channel, id DESC
), told AS (
    SELECT release_id, bool_or(removal IS NULL OR removal = 'retention') AS published,
           bool_or(removal = 'canary') AS held,
           string_agg(CASE WHEN removed_in IS NULL THEN format('published in %%s, generation %%s', channel, added_in)
                           ELSE format('%%s: %%s', channel, why) END,
                      '; ' ORDER BY removed_in IS NOT NULL, added_in, channel) AS why
      FROM place GROUP BY release_id
)
UPDATE cleanroom.release
   SET state = (CASE WHEN told.published THEN 'published' WHEN told.held THEN 'held'
                     ELSE 'withdrawn' END)::cleanroom.release_state,
       why = told.why,
       -- Only a person lets it go out again.
       hold_reason = CASE WHEN told.held AND NOT told.published THEN told.why END
  FROM told
 -- What is held and was in a channel, is held by its canary.
 WHERE release.id = told.release_id AND release.state IN ('passed', 'published', 'withdrawn', 'held')

-- name: finish_requests
UPDATE cleanroom.repository_request SET state = 'done', finished_at = now()
 WHERE generation = %(number)s AND state = 'pending'

-- name: discard
DELETE FROM cleanroom.generation WHERE number = %(number)s AND switched_at IS NULL

-- name: contents
SELECT * FROM cleanroom.channel_package
 WHERE added_in <= %(number)s AND (removed_in IS NULL OR removed_in > %(number)s)
 ORDER BY channel, target, name, version, architecture

-- name: changed_packages
-- What became of packages after the lesser of two generations, up to the greater.
SELECT * FROM cleanroom.channel_package
 WHERE (added_in > %(least)s AND added_in <= %(most)s) OR (removed_in > %(least)s AND removed_in <= %(most)s)
 ORDER BY channel, target, name, version, architecture, id

-- name: way_back
-- Which packages have to come and to go for the first generation to become like the second; what left and came back
-- between the two is in both.
WITH changed AS (
    SELECT id, channel, target, format, name, version, architecture, sha256, withdrawn_by,
           added_in <= %(first)s AND (removed_in IS NULL OR removed_in > %(first)s) AS before,
           added_in <= %(second)s AND (removed_in IS NULL OR removed_in > %(second)s) AS after
      FROM cleanroom.channel_package
     WHERE (added_in > %(least)s AND added_in <= %(most)s) OR (removed_in > %(least)s AND removed_in <= %(most)s)
), content AS (
    SELECT max(id) FILTER (WHERE before) AS before, max(id) FILTER (WHERE after) AS after,
           bool_or(withdrawn_by IS NOT NULL) FILTER (WHERE after) AS withdrawn
      FROM changed WHERE before OR after
     GROUP BY channel, target, format, name, version, architecture, sha256
)
SELECT coalesce(array_agg(before) FILTER (WHERE after IS NULL), '{}') AS removed,
       coalesce(array_agg(after) FILTER (WHERE before IS NULL AND NOT withdrawn), '{}') AS added
  FROM content

-- name: kept_out
-- What a generation had and was withdrawn since; what is there now cannot be.
SELECT * FROM cleanroom.channel_package
 WHERE withdrawn_by IS NOT NULL AND added_in <= %(number)s AND (removed_in IS NULL OR removed_in > %(number)s)
 ORDER BY channel, target, name, version, architecture, id

-- name: changed_releases
SELECT there.*, release.product, release.ref, fix.evidence
  FROM cleanroom.channel_release AS there
  JOIN cleanroom.release ON release.id = there.release_id
  LEFT JOIN cleanroom.security_fix AS fix ON fix.release_id = there.release_id
 WHERE ((there.added_in > %(least)s AND there.added_in <= %(most)s)
        OR (there.removed_in > %(least)s AND there.removed_in <= %(most)s))
   AND (fix.evidence IS NOT NULL OR NOT %(only_fixes)s)
 ORDER BY release.product, there.channel, there.id

-- name: packages_of_release
SELECT * FROM cleanroom.channel_package
 WHERE release_id = %(release)s AND channel = ANY(%(channels)s) AND removed_in IS NULL ORDER BY id

-- name: channels_of_release
SELECT there.*, release.product, release.ref, fix.evidence
  FROM cleanroom.channel_release AS there
  JOIN cleanroom.release ON release.id = there.release_id
  LEFT JOIN cleanroom.security_fix AS fix ON fix.release_id = there.release_id
 WHERE there.release_id = %(release)s AND there.removed_in IS NULL ORDER BY there.id

-- name: present
SELECT package.*
  FROM unnest(%(channels)s::text[], %(targets)s::text[], %(formats)s::text[], %(names)s::text[], %(versions)s::text[],
              %(architectures)s::text[]) AS wanted (channel, target, format, name, version, architecture)
  JOIN cleanroom.channel_package AS package USING (channel, target, format, name, version, architecture)
 WHERE package.removed_in IS NULL

-- name: withdrawn_versions
-- Which of these versions were withdrawn from their channel.
SELECT DISTINCT ON (package.channel, package.target, package.format, package.name, package.version,
                    package.architecture)
       package.*, request.actor, request.reason
  FROM unnest(%(channels)s::text[], %(targets)s::text[], %(formats)s::text[], %(names)s::text[], %(versions)s::text[],
              %(architectures)s::text[]) AS wanted (channel, target, format, name, version, architecture)
  JOIN cleanroom.channel_package AS package USING (channel, target, format, name, version, architecture)
  JOIN cleanroom.repository_request AS request ON request.id = package.withdrawn_by

-- name: withdrawn
SELECT package.channel, package.target, package.format, package.name, package.version, package.architecture,
       package.file, package.sha256, request.actor, request.reason, request.requested_at AS at,
       request.generation, release.product, release.ref
  FROM cleanroom.channel_package AS package
  JOIN cleanroom.repository_request AS request ON request.id = package.withdrawn_by
  LEFT JOIN cleanroom.release ON release.id = package.release_id
 WHERE NOT EXISTS (SELECT FROM cleanroom.channel_package AS later
                    WHERE later.withdrawn_by = package.withdrawn_by AND later.channel = package.channel
                      AND later.target = package.target AND later.file = package.file AND later.id > package.id)
 ORDER BY package.id DESC LIMIT %(limit)s

-- name: origins
-- What is in a generation that is being written came just now, or, where it goes back to an earlier one, when it first
-- came. The logs are those of the attempt that counts.
SELECT DISTINCT ON (package.channel, package.sha256) package.channel, package.sha256,
       coalesce(generation.switched_at, generation.created_at) AS at, release.product, release.ref,
       (SELECT attempt.buildbot_url FROM cleanroom.build JOIN cleanroom.attempt ON attempt.build_id = build.id
         WHERE build.release_id = package.release_id AND build.target = package.target
         ORDER BY attempt.number DESC LIMIT 1) AS logs
  FROM unnest(%(channels)s::text[], %(digests)s::text[]) AS wanted (channel, sha256)
  JOIN cleanroom.channel_package AS package
    ON package.channel = wanted.channel AND package.sha256 = wanted.sha256
  JOIN cleanroom.generation ON generation.number = package.added_in
  JOIN cleanroom.release ON release.id = package.release_id
 ORDER BY package.channel, package.sha256, package.id DESC

-- name: get
-- The reason names what came and went.
SELECT number, created_at, switched_at, actor, added, removed,
       CASE WHEN current_user <> 'cleanroom_reader' OR cleanroom.generation_may_be_read(number) THEN reason ELSE '' END
           AS reason
  FROM cleanroom.generation WHERE number = %(number)s AND switched_at IS NOT NULL

-- name: published_of
SELECT package.* FROM cleanroom.channel_package AS package
 WHERE package.channel = %(channel)s AND package.target = %(target)s AND package.removed_in IS NULL
   AND package.release_id = (
       SELECT max(release.id)
         FROM cleanroom.release
         JOIN cleanroom.channel_package AS there ON there.release_id = release.id
         JOIN cleanroom.generation ON generation.number = there.added_in
        WHERE release.product = %(product)s AND there.channel = %(channel)s AND there.target = %(target)s
          AND there.removed_in IS NULL AND generation.switched_at IS NOT NULL)
 ORDER BY package.name, package.id

-- name: ever
SELECT DISTINCT ON (package.target, package.format, package.name, package.version, package.architecture,
                    package.channel, package.built_sha256) package.*
  FROM unnest(%(targets)s::text[], %(formats)s::text[], %(names)s::text[], %(versions)s::text[],
              %(architectures)s::text[]) AS wanted (target, format, name, version, architecture)
  JOIN cleanroom.channel_package AS package USING (target, format, name, version, architecture)
 ORDER BY package.target, package.format, package.name, package.version, package.architecture, package.channel,
          package.built_sha256, package.id

-- name: shown_within
-- One is seen until the next one is switched to.
SELECT number FROM (SELECT number, lead(switched_at) OVER (ORDER BY number) AS until
                      FROM cleanroom.generation WHERE switched_at IS NOT NULL) AS shown
 WHERE until IS NULL OR until > now() - make_interval(secs => %(grace)s)

-- name: needed
SELECT package.* FROM cleanroom.channel_package AS package
  LEFT JOIN cleanroom.generation AS gone ON gone.number = package.removed_in
 WHERE package.removed_in IS NULL OR package.removed_in > %(oldest)s OR gone.switched_at IS NULL
    OR gone.switched_at > now() - make_interval(secs => %(grace)s)

-- name: aged
SELECT package.*, generation.switched_at AS since
  FROM cleanroom.channel_package AS package JOIN cleanroom.generation ON generation.number = package.added_in
 WHERE package.channel = %(channel)s AND package.removed_in IS NULL AND generation.switched_at IS NOT NULL

-- name: builds
SELECT DISTINCT built_sha256 FROM cleanroom.channel_package WHERE channel = %(channel)s AND removed_in IS NULL

-- name: emptied
SELECT there.id FROM cleanroom.channel_release AS there
 WHERE there.channel = %(channel)s AND there.removed_in IS NULL
   AND EXISTS (SELECT FROM cleanroom.channel_package AS package
                WHERE package.release_id = there.release_id AND package.channel = there.channel
                  AND package.id = ANY(%(ids)s))
   AND NOT EXISTS (SELECT FROM cleanroom.channel_package AS package
                    WHERE package.release_id = there.release_id AND package.channel = there.channel
                      AND package.removed_in IS NULL AND package.id <> ALL(%(ids)s))
