-- What is shown of many releases at once. Every block is bounded, whatever is recorded.

-- name: named (prepared)
-- The products whose names have a text; what is more than a few is not narrowed down by it.
SELECT name FROM cleanroom.product WHERE strpos(name, %(part)s) > 0 ORDER BY name <> %(part)s, name LIMIT %(limit)s

-- name: releases
-- The newest releases, before one of them where that is asked for.
SELECT release.id, release.product, release.ref, release.version, release.kind, release.channel, release.state,
       release.why, release.created_at, release.finished_at
  FROM cleanroom.release
 WHERE (%(product)s::text IS NULL OR strpos(release.product, %(product)s) > 0)
   AND (%(exactly)s::text[] IS NULL OR release.product = ANY(%(exactly)s::text[]))
   AND (%(channel)s::text IS NULL OR release.channel = %(channel)s)
   AND (%(state)s::cleanroom.release_state IS NULL OR release.state = %(state)s)
   AND (%(before)s::bigint IS NULL OR release.id < %(before)s)
 ORDER BY release.id DESC LIMIT %(limit)s

-- name: columns (prepared)
-- The targets that most of some releases have.
SELECT target FROM cleanroom.build WHERE release_id = ANY(%(releases)s)
 GROUP BY target ORDER BY count(*) DESC, target LIMIT %(limit)s

-- name: cells (prepared)
-- How each of some builds stands: its latest attempt, and the phase that runs.
SELECT build.release_id, build.target, latest.number, latest.outcome, latest.started_at, running.name AS phase
  FROM cleanroom.build
 CROSS JOIN LATERAL (
       SELECT attempt.id, attempt.number, attempt.outcome, attempt.started_at FROM cleanroom.attempt
        WHERE attempt.build_id = build.id ORDER BY attempt.number DESC LIMIT 1) AS latest
  LEFT JOIN LATERAL (
       SELECT phase.name FROM cleanroom.phase
        WHERE phase.attempt_id = latest.id AND latest.outcome IS NULL AND phase.outcome IS NULL
        ORDER BY phase.position DESC, phase.replay DESC LIMIT 1) AS running ON true
 WHERE build.release_id = ANY(%(releases)s) AND build.target = ANY(%(targets)s)

-- name: further (prepared)
-- Of each release, how many builds on other targets stand how; null: not ended.
SELECT build.release_id, latest.outcome, count(*) AS number
  FROM cleanroom.build
 CROSS JOIN LATERAL (
       SELECT attempt.outcome FROM cleanroom.attempt
        WHERE attempt.build_id = build.id ORDER BY attempt.number DESC LIMIT 1) AS latest
 WHERE build.release_id = ANY(%(releases)s) AND build.target <> ALL(%(targets)s)
 GROUP BY build.release_id, latest.outcome
 ORDER BY build.release_id, latest.outcome

-- name: running (prepared)
-- What is worked on now, the longest first, and how long the phase it is in took when it last passed.
SELECT attempt.id AS attempt, coalesce(release.product, trial.product) AS product,
       coalesce(release.ref, trial.ref) AS ref, trial.id AS trial, trial.purpose, build.target, attempt.number,
       attempt.worker, attempt.started_at, phase.name AS phase, phase.replay, phase.started_at AS phase_started_at,
       extract(epoch FROM now() - coalesce(phase.started_at, attempt.started_at))::double precision AS seconds,
       step.id AS step_id, step.name AS step, usual.seconds AS usual_seconds
  FROM cleanroom.attempt
  JOIN cleanroom.build ON build.id = attempt.build_id
  LEFT JOIN cleanroom.release ON release.id = build.release_id
  LEFT JOIN cleanroom.trial ON trial.id = build.trial_id
  LEFT JOIN LATERAL (
       SELECT * FROM cleanroom.phase WHERE phase.attempt_id = attempt.id AND phase.outcome IS NULL
        ORDER BY phase.position DESC, phase.replay DESC LIMIT 1) AS phase ON true
  LEFT JOIN LATERAL (
       SELECT * FROM cleanroom.step WHERE step.phase_id = phase.id ORDER BY step.position DESC LIMIT 1) AS step ON true
  LEFT JOIN LATERAL (
       SELECT percentile_cont(0.5) WITHIN GROUP (ORDER BY past.seconds) AS seconds FROM (
              SELECT earlier.seconds FROM (
                     SELECT id FROM cleanroom.release AS old
                      WHERE old.product = coalesce(release.product, trial.product)
                      ORDER BY id DESC LIMIT %(looked_at)s) AS known
                JOIN cleanroom.build AS made ON made.release_id = known.id AND made.target = build.target
                JOIN cleanroom.attempt AS tried ON tried.build_id = made.id
                JOIN cleanroom.phase AS earlier ON earlier.attempt_id = tried.id AND earlier.name = phase.name
                 AND earlier.replay = 0 AND earlier.outcome = 'passed'
               ORDER BY known.id DESC LIMIT %(runs)s) AS past) AS usual ON true
 WHERE attempt.finished_at IS NULL AND attempt.lease_owner IS NOT NULL
 ORDER BY attempt.started_at, attempt.id LIMIT %(limit)s

-- name: counts (prepared)
-- What there is at all, so that an empty page can say what to do.
SELECT EXISTS (SELECT FROM cleanroom.product WHERE removed_at IS NULL) AS products,
       EXISTS (SELECT FROM cleanroom.ref_event) AS events,
       EXISTS (SELECT FROM cleanroom.release) AS releases

-- name: channels (prepared)
-- The channels that releases are in; found by skipping from one to the next in the index.
WITH RECURSIVE found AS (
    (SELECT channel FROM cleanroom.release ORDER BY channel LIMIT 1)
    UNION ALL
    SELECT (SELECT release.channel FROM cleanroom.release WHERE release.channel > found.channel
             ORDER BY release.channel LIMIT 1)
      FROM found WHERE found.channel IS NOT NULL
)
SELECT channel FROM found WHERE channel IS NOT NULL LIMIT %(limit)s

-- name: products
-- What is watched, by name, each with its latest release.
SELECT product.name, product.watched_at, product.watch_error, latest.ref, latest.version, latest.state, latest.why,
       latest.created_at
  FROM cleanroom.product
  LEFT JOIN LATERAL (
       SELECT * FROM cleanroom.release WHERE release.product = product.name ORDER BY id DESC LIMIT 1) AS latest ON true
 WHERE product.removed_at IS NULL AND product.name > %(after)s
   AND (%(part)s::text IS NULL OR strpos(product.name, %(part)s) > 0)
 ORDER BY product.name LIMIT %(limit)s

-- name: in_channels (prepared)
-- The release of a product that came last into each channel and is there.
SELECT DISTINCT ON (there.channel) there.channel, release.ref, release.version, generation.number AS generation,
       generation.switched_at AS at
  FROM cleanroom.channel_release AS there
  JOIN cleanroom.release ON release.id = there.release_id
  JOIN cleanroom.generation ON generation.number = there.added_in AND generation.switched_at IS NOT NULL
 WHERE release.product = %(product)s AND there.removed_in IS NULL
 ORDER BY there.channel, there.added_in DESC, release.id DESC
