-- Which product depends on which, what waits for what because of that, and which dependents a release is tried with.

SET LOCAL search_path = cleanroom, pg_catalog;

CREATE TYPE dependency_origin AS ENUM ('recipe', 'build', 'package');

-- What a product needs: products that its recipe names, packages that were installed while it was last built, and
-- packages that its own packages name.
CREATE TABLE product_need (
    product text NOT NULL REFERENCES product,
    target text NOT NULL,                           -- empty for what the recipe says
    origin dependency_origin NOT NULL,
    name text NOT NULL CHECK (length(name) BETWEEN 1 AND 255),
    PRIMARY KEY (product, target, origin, name),
    CHECK (origin <> 'recipe' OR name <> product)
);
CREATE INDEX product_need_name ON product_need (name);

-- What follows from that and from what is published now.
CREATE VIEW product_dependency AS
WITH provided AS (
    SELECT DISTINCT release.product, split_part(package.target, '/', 1) AS image, package.format, package.name
      FROM channel_package AS package JOIN release ON release.id = package.release_id
     WHERE package.removed_in IS NULL AND package.format IN ('deb', 'rpm'))
SELECT need.product, need.name AS depends_on, need.origin, '{}'::text[] AS packages
  FROM product_need AS need
  JOIN product ON product.name = need.product AND product.removed_at IS NULL
 WHERE need.origin = 'recipe'
UNION ALL
SELECT need.product, provided.product, need.origin, array_agg(DISTINCT need.name ORDER BY need.name)
  FROM product_need AS need
  JOIN product ON product.name = need.product AND product.removed_at IS NULL
  JOIN provided ON provided.name = need.name AND provided.image = split_part(need.target, '/', 1)
   AND provided.format = CASE WHEN need.origin = 'package' THEN split_part(need.target, '/', 2) ELSE 'deb' END
 WHERE need.origin <> 'recipe' AND provided.product <> need.product
 GROUP BY need.product, provided.product, need.origin;

-- A release is built once what it waits for is published, or is known not to be.
CREATE TABLE release_wait (
    release_id bigint NOT NULL REFERENCES release,
    waits_for bigint NOT NULL REFERENCES release,
    PRIMARY KEY (release_id, waits_for),
    CHECK (release_id <> waits_for)
);

-- The dependents that a release is tried with before it goes out.
CREATE TABLE dependent_choice (
    release_id bigint PRIMARY KEY REFERENCES release,
    trials bigint[] NOT NULL,
    left_out text[] NOT NULL,                       -- the products for which there was no room
    chosen_at timestamptz NOT NULL DEFAULT now()
);
