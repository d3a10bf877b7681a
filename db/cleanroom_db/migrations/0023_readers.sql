-- What a reader of some products sees: the server itself leaves out the rows of all others.
--
-- Whoever may read everything connects as before, and its plans are as before: of a policy that is true nothing is left.
-- What the role cleanroom_reader may read at all stands in grants.sql. test_case has no policy, because the master writes
-- it by COPY; nobody finds a case but by its phase.

SET LOCAL search_path = cleanroom, pg_catalog;

-- Nothing, where nobody said what may be read.
CREATE FUNCTION may_be_read(product text) RETURNS boolean LANGUAGE sql STABLE PARALLEL SAFE
    RETURN $1 = ANY (nullif(current_setting('cleanroom.products', true), '')::text[]);

DO $$
DECLARE
    named text;
    condition text;
BEGIN
    FOR named, condition IN VALUES
        ('product', 'cleanroom.may_be_read(name)'),
        ('ref_event', 'cleanroom.may_be_read(product)'),
        ('release', 'cleanroom.may_be_read(product)'),
        ('trial', 'cleanroom.may_be_read(product)'),
        -- What a recipe declares are names of products.
        ('product_need', 'cleanroom.may_be_read(product) AND (origin <> ''recipe'' OR cleanroom.may_be_read(name))'),
        ('build', 'EXISTS (SELECT FROM cleanroom.release WHERE release.id = release_id)'
                  ' OR EXISTS (SELECT FROM cleanroom.trial WHERE trial.id = trial_id)'),
        ('attempt', 'EXISTS (SELECT FROM cleanroom.build WHERE build.id = build_id)'),
        ('phase', 'EXISTS (SELECT FROM cleanroom.attempt WHERE attempt.id = attempt_id)'),
        ('artifact', 'EXISTS (SELECT FROM cleanroom.attempt WHERE attempt.id = attempt_id)'),
        ('comparison', 'EXISTS (SELECT FROM cleanroom.attempt WHERE attempt.id = attempt_id)'),
        ('provenance', 'EXISTS (SELECT FROM cleanroom.attempt WHERE attempt.id = attempt_id)'),
        ('reproduction', 'EXISTS (SELECT FROM cleanroom.attempt WHERE attempt.id = attempt_id)'),
        ('reproduced_artifact', 'EXISTS (SELECT FROM cleanroom.attempt WHERE attempt.id = attempt_id)'),
        ('step', 'EXISTS (SELECT FROM cleanroom.phase WHERE phase.id = phase_id)'),
        ('package_state', 'EXISTS (SELECT FROM cleanroom.phase WHERE phase.package_state = digest)'),
        ('gate_result', 'EXISTS (SELECT FROM cleanroom.release WHERE release.id = release_id)'),
        ('gate_waiver', 'EXISTS (SELECT FROM cleanroom.release WHERE release.id = release_id)'),
        ('publication', 'EXISTS (SELECT FROM cleanroom.release WHERE release.id = release_id)'),
        ('security_fix', 'EXISTS (SELECT FROM cleanroom.release WHERE release.id = release_id)'),
        ('state_change', 'EXISTS (SELECT FROM cleanroom.release WHERE release.id = release_id)'),
        ('release_wait', 'EXISTS (SELECT FROM cleanroom.release WHERE release.id = release_id)'),
        ('union_choice', 'EXISTS (SELECT FROM cleanroom.release WHERE release.id = release_id)'),
        ('union_member', 'EXISTS (SELECT FROM cleanroom.release WHERE release.id = release_id)'),
        ('channel_release', 'EXISTS (SELECT FROM cleanroom.release WHERE release.id = release_id)'),
        ('canary', 'EXISTS (SELECT FROM cleanroom.channel_release AS there WHERE there.id = place)'),
        -- What came from elsewhere belongs to no product.
        ('channel_package', 'release_id IS NULL OR EXISTS (SELECT FROM cleanroom.release WHERE release.id = release_id)'),
        ('repository_request', 'EXISTS (SELECT FROM cleanroom.release WHERE release.id = release_id)')
    LOOP
        EXECUTE format('ALTER TABLE cleanroom.%I ENABLE ROW LEVEL SECURITY', named);
        EXECUTE format('CREATE POLICY readers ON cleanroom.%I FOR SELECT TO cleanroom_reader USING (%s)', named, condition);
        -- That of requests has policies of its own for all others.
        IF named <> 'repository_request' THEN
            EXECUTE format('CREATE POLICY others ON cleanroom.%I TO cleanroom_master, cleanroom_publisher, cleanroom_web,'
                           ' cleanroom_refs, cleanroom_hooks, cleanroom_notifications, cleanroom_access USING (true)', named);
        END IF;
    END LOOP;
END $$;

-- Otherwise it would be read with the rights of its owner.
ALTER VIEW product_dependency SET (security_invoker = true);

-- Whether all may be read that came or went with a generation, whose reason names it.
CREATE FUNCTION generation_may_be_read(generation bigint) RETURNS boolean LANGUAGE sql STABLE SECURITY DEFINER
    SET search_path = cleanroom, pg_catalog
    RETURN NOT EXISTS (
        SELECT FROM channel_release JOIN release ON release.id = channel_release.release_id
         WHERE (channel_release.added_in = $1 OR channel_release.removed_in = $1)
           AND may_be_read(release.product) IS NOT TRUE);
