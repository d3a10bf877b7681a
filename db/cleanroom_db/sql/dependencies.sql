-- name: forget_declared
DELETE FROM cleanroom.product_need WHERE product = ANY(%(products)s) AND origin = 'recipe'

-- name: forget_found
DELETE FROM cleanroom.product_need WHERE product = %(product)s AND target = %(target)s AND origin <> 'recipe'

-- name: insert
INSERT INTO cleanroom.product_need (product, target, origin, name) VALUES %s ON CONFLICT DO NOTHING

-- name: all (prepared)
SELECT * FROM cleanroom.product_dependency ORDER BY product, depends_on, origin

-- name: wait
-- Each new release waits for the latest open one of each product on which its own depends.
INSERT INTO cleanroom.release_wait (release_id, waits_for)
SELECT DISTINCT ON (new.id, other.product) new.id, other.id
  FROM cleanroom.release AS new
  JOIN unnest(%(products)s::text[], %(depends_on)s::text[]) AS edge (product, depends_on) ON edge.product = new.product
  JOIN cleanroom.release AS other ON other.product = edge.depends_on AND other.channel = new.channel
   AND other.state IN ('waiting', 'building', 'passed')
 WHERE new.id = ANY(%(releases)s)
 ORDER BY new.id, other.product, other.id DESC

-- name: queue (prepared)
-- All that is not at its end: releases with what they wait for, and trials.
SELECT 'release' AS kind, NULL::cleanroom.trial_purpose AS purpose, release.id, release.product, release.ref,
       release.channel, release.state::text AS state, release.why, release.created_at,
       ARRAY(SELECT other.product || ' ' || other.ref
               FROM cleanroom.release_wait JOIN cleanroom.release AS other ON other.id = release_wait.waits_for
              WHERE release_wait.release_id = release.id AND other.state IN ('waiting', 'building', 'passed')
              UNION ALL
             SELECT trial.purpose || ' ' || trial.product || ' ' || trial.ref
               FROM cleanroom.trial WHERE trial.subject = release.id AND trial.finished_at IS NULL
              ORDER BY 1) AS waits_for,
       NULL::text AS subject, 0 AS priority
  FROM cleanroom.release WHERE release.finished_at IS NULL
UNION ALL
SELECT 'trial', trial.purpose, trial.id, trial.product, trial.ref, trial.channel,
       CASE WHEN EXISTS (SELECT FROM cleanroom.build JOIN cleanroom.attempt ON attempt.build_id = build.id
                          WHERE build.trial_id = trial.id AND attempt.lease_owner IS NOT NULL
                            AND attempt.finished_at IS NULL)
            THEN 'building' ELSE 'waiting' END,
       trial.why, trial.created_at, '{}', release.product || ' ' || release.ref,
       (SELECT min(attempt.priority) FROM cleanroom.build JOIN cleanroom.attempt ON attempt.build_id = build.id
         WHERE build.trial_id = trial.id)
  FROM cleanroom.trial LEFT JOIN cleanroom.release ON release.id = trial.subject
 WHERE trial.finished_at IS NULL
 ORDER BY priority, kind, id
