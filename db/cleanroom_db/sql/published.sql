-- name: channels (prepared)
-- Counted in two steps, because distinct values are sorted and groups are hashed.
SELECT channel, sum(packages)::bigint AS packages, count(release_id) AS releases
  FROM (SELECT package.channel, package.release_id, count(*) AS packages
          FROM cleanroom.channel_package AS package
         WHERE package.removed_in IS NULL
         GROUP BY package.channel, package.release_id) AS released
 GROUP BY channel ORDER BY channel

-- name: generations
-- Those that consumers saw, newest first, with how much each changed.
SELECT number, switched_at, actor,
       CASE WHEN current_user <> 'cleanroom_reader' OR cleanroom.generation_may_be_read(number) THEN reason ELSE '' END
           AS reason, jsonb_array_length(added) AS added, jsonb_array_length(removed) AS removed,
       number - 1 IN (SELECT number FROM cleanroom.generation) AS has_previous
  FROM cleanroom.generation
 WHERE switched_at IS NOT NULL AND (%(before)s::bigint IS NULL OR number < %(before)s)
 ORDER BY number DESC LIMIT %(limit)s
