-- name: attached
INSERT INTO cleanroom.worker (name, protocol, problem) VALUES (%(name)s, %(protocol)s, %(problem)s)
ON CONFLICT (name) DO UPDATE SET protocol = excluded.protocol, problem = excluded.problem, attached_at = now()

-- name: all
SELECT name, protocol, problem, attached_at FROM cleanroom.worker ORDER BY name
