-- name: demand
-- Of what a generation brings in by publication, the releases that have a package to install.
INSERT INTO cleanroom.canary (place)
SELECT there.id FROM cleanroom.channel_release AS there
  JOIN cleanroom.publication ON publication.release_id = there.release_id AND publication.channel = there.channel
 WHERE there.added_in = %(number)s AND publication.id = ANY(%(publications)s)
   AND EXISTS (SELECT FROM cleanroom.channel_package AS package
                WHERE package.release_id = there.release_id AND package.channel = there.channel
                  AND package.removed_in IS NULL AND package.format IN ('deb', 'rpm')
                  AND package.architecture NOT IN ('source', 'src', 'nosrc'))
ON CONFLICT DO NOTHING

-- name: waiting
-- Releases that consumers see, and for which no guest was asked for yet or the surroundings spoiled the last one.
SELECT canary.place, there.channel, there.added_in, release.id, release.product, release.ref, release.commit,
       release.kind, release.recipe
  FROM cleanroom.canary
  JOIN cleanroom.channel_release AS there ON there.id = canary.place
  JOIN cleanroom.generation ON generation.number = there.added_in
  JOIN cleanroom.release ON release.id = there.release_id
  LEFT JOIN cleanroom.trial ON trial.id = canary.trial_id
 WHERE there.removed_in IS NULL AND generation.switched_at IS NOT NULL
   AND (canary.trial_id IS NULL
        OR (trial.outcome IN ('infrastructure', 'cancelled')
            AND trial.finished_at < now() - make_interval(secs => %(pause)s)))
   AND EXISTS (SELECT FROM cleanroom.channel_package AS package
                WHERE package.release_id = there.release_id AND package.channel = there.channel
                  AND package.removed_in IS NULL)
 ORDER BY canary.place LIMIT %(limit)s

-- name: targets
-- The images and clients of what a release brought into a channel, and whether there is something to upgrade from.
SELECT split_part(package.target, '/', 1) || '/' || package.format AS target,
       bool_or(EXISTS (SELECT FROM cleanroom.channel_package AS earlier
                        WHERE earlier.channel = package.channel AND earlier.format = package.format
                          AND split_part(earlier.target, '/', 1) = split_part(package.target, '/', 1)
                          AND earlier.name = package.name AND earlier.architecture = package.architecture
                          AND earlier.release_id IS DISTINCT FROM package.release_id
                          AND earlier.added_in < %(added_in)s AND earlier.removed_in IS NULL)) AS upgrades
  FROM cleanroom.channel_package AS package
 WHERE package.release_id = %(release)s AND package.channel = %(channel)s AND package.removed_in IS NULL
   AND package.format IN ('deb', 'rpm') AND package.architecture NOT IN ('source', 'src', 'nosrc')
 GROUP BY 1 ORDER BY 1

-- name: begin
UPDATE cleanroom.canary SET trial_id = %(trial)s WHERE place = %(place)s

-- name: packages
-- What a trial installs for one client of an image; with `earlier`, what was there before, the latest of each.
SELECT DISTINCT ON (package.name, package.architecture) package.*
  FROM cleanroom.canary
  JOIN cleanroom.channel_release AS there ON there.id = canary.place
  JOIN cleanroom.channel_package AS own
    ON own.release_id = there.release_id AND own.channel = there.channel AND own.removed_in IS NULL
  JOIN cleanroom.channel_package AS package
    ON package.channel = own.channel AND package.format = own.format AND package.name = own.name
   AND package.architecture = own.architecture AND package.removed_in IS NULL
   AND split_part(package.target, '/', 1) = split_part(own.target, '/', 1)
   AND CASE WHEN %(earlier)s THEN package.release_id IS DISTINCT FROM own.release_id
                                  AND package.added_in < there.added_in
            ELSE package.id = own.id END
 WHERE canary.trial_id = %(trial)s AND own.format = %(format)s AND split_part(own.target, '/', 1) = %(image)s
   AND own.architecture NOT IN ('source', 'src', 'nosrc')
 ORDER BY package.name, package.architecture, package.added_in DESC, package.id DESC

-- name: failed
-- Releases that a consumer could not install, and that are still there; what came back by a person's will stays.
SELECT canary.place, there.release_id, there.channel, there.added_in, release.product, release.ref, found.target,
       found.why
  FROM cleanroom.canary
  JOIN cleanroom.channel_release AS there ON there.id = canary.place
  JOIN cleanroom.release ON release.id = there.release_id
  CROSS JOIN LATERAL (
      SELECT build.target, attempt.why
        FROM cleanroom.build JOIN cleanroom.attempt ON attempt.build_id = build.id
       WHERE build.trial_id = canary.trial_id AND attempt.outcome = 'failed'
         AND attempt.number = (SELECT max(number) FROM cleanroom.attempt AS latest WHERE latest.build_id = build.id)
       ORDER BY build.id LIMIT 1) AS found
 WHERE there.removed_in IS NULL AND canary.problem = ''
   AND NOT EXISTS (SELECT FROM cleanroom.channel_release AS before
                    WHERE before.release_id = there.release_id AND before.channel = there.channel
                      AND before.id < there.id AND before.removal = 'canary')
 ORDER BY canary.place

-- name: give_up
UPDATE cleanroom.canary SET problem = %(problem)s WHERE place = %(place)s

-- name: places_of_release (prepared)
SELECT id FROM cleanroom.channel_release WHERE release_id = %(release)s

-- name: places_of_generations (prepared)
SELECT id FROM cleanroom.channel_release WHERE added_in = ANY(%(generations)s)

-- name: told (prepared)
-- How releases did, by the channels and generations into which they came: each client of each image in its latest
-- attempt, the time without what prepares the guest.
SELECT canary.place, there.release_id, release.product, release.ref, there.channel, there.added_in AS generation,
       gone.switched_at IS NULL AS there, there.removal, canary.trial_id AS trial, canary.problem,
       trial.finished_at, build.target, attempt.number AS attempt, attempt.outcome, attempt.why,
       attempt.started_at, attempt.not_before > now() AS pauses,
       EXISTS (SELECT FROM cleanroom.channel_release AS before
                WHERE before.release_id = there.release_id AND before.channel = there.channel
                  AND before.id < there.id AND before.removal = 'canary') AS insisted,
       (SELECT why FROM cleanroom.attempt AS before
         WHERE before.build_id = build.id AND before.number = attempt.number - 1) AS spoiled,
       (SELECT coalesce(jsonb_agg(jsonb_build_object(
                   'name', phase.name, 'outcome', phase.outcome, 'why', phase.why,
                   'seconds', (SELECT sum(step.seconds) FROM cleanroom.step
                                WHERE step.phase_id = phase.id AND step.name <> ALL(%(prepares)s)),
                   'log', (SELECT step.log_sha256 FROM cleanroom.step
                            WHERE step.phase_id = phase.id AND step.outcome = 'failed'
                            ORDER BY step.position DESC LIMIT 1))
               ORDER BY phase.position), '[]')
          FROM cleanroom.phase WHERE phase.attempt_id = attempt.id) AS phases
  FROM cleanroom.canary
  JOIN cleanroom.channel_release AS there ON there.id = canary.place
  JOIN cleanroom.generation ON generation.number = there.added_in AND generation.switched_at IS NOT NULL
  -- What leaves is there until consumers see that it left.
  LEFT JOIN cleanroom.generation AS gone ON gone.number = there.removed_in
  JOIN cleanroom.release ON release.id = there.release_id
  LEFT JOIN cleanroom.trial ON trial.id = canary.trial_id
  LEFT JOIN cleanroom.build ON build.trial_id = trial.id
  LEFT JOIN cleanroom.attempt ON attempt.build_id = build.id
   AND attempt.number = (SELECT max(number) FROM cleanroom.attempt AS latest WHERE latest.build_id = build.id)
 WHERE canary.place = ANY(%(places)s)
 ORDER BY canary.place, build.id

-- name: latest
-- The latest generation that brought something to install.
SELECT max(there.added_in) FROM cleanroom.canary
  JOIN cleanroom.channel_release AS there ON there.id = canary.place
  JOIN cleanroom.generation ON generation.number = there.added_in AND generation.switched_at IS NOT NULL
