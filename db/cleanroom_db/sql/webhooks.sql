-- name: product
SELECT * FROM cleanroom.product WHERE name = %(name)s AND removed_at IS NULL

-- name: addresses
SELECT name, url FROM cleanroom.product WHERE removed_at IS NULL ORDER BY name

-- name: forget
-- What is older is refused by its own time.
DELETE FROM cleanroom.webhook_delivery WHERE received_at < now() - make_interval(secs => %(seconds)s)

-- name: receive
INSERT INTO cleanroom.webhook_delivery (forge, delivery, digest, event, product)
VALUES (%(forge)s, %(delivery)s, %(digest)s, %(event)s, %(product)s)
ON CONFLICT DO NOTHING
RETURNING id

-- name: wish
INSERT INTO cleanroom.look_wish AS wish (product) VALUES (%(product)s)
ON CONFLICT (product) DO UPDATE SET number = wish.number + 1, wished_at = now()

-- name: wishes
SELECT product, number FROM cleanroom.look_wish ORDER BY wished_at

-- name: granted
DELETE FROM cleanroom.look_wish WHERE product = %(product)s AND number = %(number)s

-- name: latest
SELECT * FROM cleanroom.webhook_delivery
 WHERE %(product)s::text IS NULL OR product = %(product)s
 ORDER BY id DESC LIMIT %(limit)s
