-- name: untold
-- Changes about which nobody was told yet, oldest first, each with its release if it is of one.
SELECT change.id, change.state, change.why, change.generation, change.at, change.release_id, release.product,
       release.ref, release.commit, release.version, release.channel, release.recipe -> 'notify' AS subscribed,
       product.url
  FROM cleanroom.state_change AS change
  LEFT JOIN cleanroom.release ON release.id = change.release_id
  LEFT JOIN cleanroom.product ON product.name = release.product
 WHERE change.told_at IS NULL
 ORDER BY change.id LIMIT %(limit)s FOR NO KEY UPDATE OF change SKIP LOCKED

-- name: told
UPDATE cleanroom.state_change SET told_at = now() WHERE id = %(id)s

-- name: comparisons
-- What became of each build of a release since what its channel published, by its last attempt that says something.
SELECT latest.target, latest.outcome, latest.why, against.ref AS against, comparison.regressed, comparison.fixed,
       comparison.phases, comparison.names
  FROM (SELECT DISTINCT ON (build.target) build.target, attempt.id, attempt.outcome, attempt.why
          FROM cleanroom.build JOIN cleanroom.attempt ON attempt.build_id = build.id
         WHERE build.release_id = %(release)s
           AND attempt.outcome IN ('passed', 'failed', 'regressed', 'flaky', 'skipped')
         ORDER BY build.target, attempt.number DESC) AS latest
  LEFT JOIN cleanroom.comparison ON comparison.attempt_id = latest.id AND comparison.base = 'published'
  LEFT JOIN cleanroom.release AS against ON against.id = comparison.against
 ORDER BY latest.target

-- name: standing
SELECT regressed, release_id FROM cleanroom.standing WHERE product = %(product)s AND channel = %(channel)s FOR UPDATE

-- name: stand
INSERT INTO cleanroom.standing (product, channel, regressed, release_id)
VALUES (%(product)s, %(channel)s, %(regressed)s, %(release)s)
ON CONFLICT (product, channel) DO UPDATE SET regressed = excluded.regressed, release_id = excluded.release_id

-- name: generation
SELECT generation.number, generation.actor, generation.reason, request.kind
  FROM cleanroom.generation
  LEFT JOIN cleanroom.repository_request AS request
         ON request.generation = generation.number AND request.kind IN ('rollback', 'withdraw')
 WHERE generation.number = %(number)s

-- name: moved
-- The releases that came and went with a generation; what a channel's own rules dropped is no news.
SELECT release.id AS release_id, release.product, release.ref, release.commit, release.version, moved.channel,
       release.recipe -> 'notify' AS subscribed, moved.added_in = %(number)s AS came, moved.removal, moved.why
  FROM cleanroom.channel_release AS moved JOIN cleanroom.release ON release.id = moved.release_id
 WHERE moved.added_in = %(number)s OR (moved.removed_in = %(number)s AND moved.removal <> 'retention')
 ORDER BY release.product, moved.channel, moved.id

-- name: supersede
-- Only the newest status of a commit counts. What is just being sent is left to who sends it.
UPDATE cleanroom.notification SET state = 'superseded', settled_at = now()
 WHERE endpoint = %(endpoint)s AND release_id = %(release)s AND event = 'status' AND state = 'pending'
   AND lease_owner IS NULL

-- name: add
INSERT INTO cleanroom.notification (change_id, endpoint, event, release_id, content)
VALUES (%(change)s, %(endpoint)s, %(event)s, %(release)s, %(content)s)
ON CONFLICT DO NOTHING

-- name: lease
-- The next message that is due: of a release's messages to one endpoint, one at a time, in their order where they
-- wait equally long.
UPDATE cleanroom.notification AS taken
   SET lease_owner = %(owner)s, lease_expires_at = now() + make_interval(secs => %(seconds)s), tries = tries + 1
 WHERE taken.id = (
       SELECT due.id FROM cleanroom.notification AS due
        WHERE due.state = 'pending' AND due.not_before <= now()
          AND (due.lease_owner IS NULL OR due.lease_expires_at < now())
          AND due.endpoint <> ALL(%(busy)s)
          AND NOT EXISTS (SELECT FROM cleanroom.notification AS other
                           WHERE other.endpoint = due.endpoint AND other.state = 'pending' AND other.id <> due.id
                             AND other.release_id = due.release_id AND other.lease_expires_at >= now())
        ORDER BY due.not_before, due.id LIMIT 1 FOR UPDATE SKIP LOCKED)
RETURNING taken.*, (SELECT ref_event_id FROM cleanroom.release WHERE release.id = taken.release_id) AS ref_event_id

-- name: release
SELECT release.*, product.url FROM cleanroom.release JOIN cleanroom.product ON product.name = release.product
 WHERE release.id = %(id)s

-- name: settle
UPDATE cleanroom.notification
   SET state = %(state)s, problem = %(problem)s, lease_owner = NULL, lease_expires_at = NULL, settled_at = now()
 WHERE id = %(id)s AND lease_owner = %(owner)s AND state = 'pending'

-- name: postpone
UPDATE cleanroom.notification
   SET problem = %(problem)s, lease_owner = NULL, lease_expires_at = NULL,
       not_before = now() + make_interval(secs => %(pause)s)
 WHERE id = %(id)s AND lease_owner = %(owner)s AND state = 'pending'

-- name: next_due
SELECT extract(epoch FROM min(greatest(not_before, coalesce(lease_expires_at, not_before))) - now())::double precision
  FROM cleanroom.notification WHERE state = 'pending'

-- name: latest
SELECT notification.*, release.product, release.ref
  FROM cleanroom.notification LEFT JOIN cleanroom.release ON release.id = notification.release_id
 WHERE (%(state)s::cleanroom.notification_state IS NULL OR notification.state = %(state)s)
   AND (%(endpoint)s::text IS NULL OR notification.endpoint = %(endpoint)s)
 ORDER BY notification.id DESC LIMIT %(limit)s

-- name: retry
UPDATE cleanroom.notification SET state = 'pending', tries = 0, not_before = now(), settled_at = NULL
 WHERE id = %(id)s AND state = 'failed'

-- name: hasten
UPDATE cleanroom.notification SET tries = 0, not_before = now()
 WHERE id = %(id)s AND state = 'pending' AND lease_owner IS NULL

-- name: wake
SELECT pg_notify('cleanroom_notification', '')
