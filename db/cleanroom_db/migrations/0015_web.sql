-- What the web status asks for among many releases.

SET LOCAL search_path = cleanroom, pg_catalog;

CREATE INDEX release_by_channel ON release (channel, id DESC);
CREATE INDEX release_by_state ON release (state, id DESC);
CREATE INDEX release_by_product ON release (product, id DESC);
CREATE INDEX phase_environment ON phase (package_state, id) WHERE package_state IS NOT NULL;
