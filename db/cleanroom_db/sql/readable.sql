-- What a reader of some products is shown, see the migration 0023.

-- name: limit
SELECT set_config('cleanroom.products', %(products)s::text[]::text, true)
