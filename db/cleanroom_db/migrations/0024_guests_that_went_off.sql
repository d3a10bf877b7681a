-- A container that ended by itself was ended by its product, or somebody killed its first process: libvirt says the same
-- of both. The second time in the same phase of a build it is the product's failure.

SET LOCAL search_path = cleanroom, pg_catalog;

ALTER TABLE phase ADD COLUMN guest_went_off boolean NOT NULL DEFAULT false;
