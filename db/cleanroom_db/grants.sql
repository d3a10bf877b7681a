-- Who may do what. Applied after every migration; each role gets exactly this.

REVOKE ALL ON ALL TABLES IN SCHEMA cleanroom FROM cleanroom_master, cleanroom_publisher, cleanroom_web, cleanroom_refs,
    cleanroom_access;
GRANT USAGE ON SCHEMA cleanroom TO cleanroom_master, cleanroom_publisher, cleanroom_web, cleanroom_refs,
    cleanroom_access;
GRANT SELECT ON ALL TABLES IN SCHEMA cleanroom TO cleanroom_master, cleanroom_publisher, cleanroom_web, cleanroom_refs,
    cleanroom_access;
-- What lets somebody in is read by what lets people in.
REVOKE ALL ON cleanroom.account, cleanroom.account_grant, cleanroom.session, cleanroom.api_token,
              cleanroom.sign_in_failure FROM cleanroom_master, cleanroom_publisher, cleanroom_web, cleanroom_refs;
REVOKE ALL ON ALL TABLES IN SCHEMA cleanroom FROM cleanroom_hooks, cleanroom_notifications;
GRANT USAGE ON SCHEMA cleanroom TO cleanroom_hooks, cleanroom_notifications;

-- A reader of some products reads what names a product row by row, see the migration 0023, and what names none.
REVOKE ALL ON ALL TABLES IN SCHEMA cleanroom FROM cleanroom_reader;
GRANT USAGE ON SCHEMA cleanroom TO cleanroom_reader;
GRANT SELECT ON cleanroom.product, cleanroom.ref_event, cleanroom.release, cleanroom.trial, cleanroom.product_need,
                cleanroom.product_dependency, cleanroom.build, cleanroom.attempt, cleanroom.phase, cleanroom.step,
                cleanroom.test_case, cleanroom.artifact, cleanroom.comparison, cleanroom.provenance,
                cleanroom.reproduction, cleanroom.reproduced_artifact, cleanroom.package_state, cleanroom.gate_result,
                cleanroom.gate_waiver, cleanroom.publication, cleanroom.security_fix, cleanroom.state_change,
                cleanroom.release_wait, cleanroom.union_choice, cleanroom.union_member, cleanroom.channel_release,
                cleanroom.canary, cleanroom.channel_package, cleanroom.repository_request, cleanroom.generation
   TO cleanroom_reader;

-- What receives webhooks notes that they came, and wishes for a look at a repository; it reads no more than it must.
GRANT SELECT ON cleanroom.product, cleanroom.webhook_delivery, cleanroom.look_wish TO cleanroom_hooks;
GRANT INSERT, DELETE ON cleanroom.webhook_delivery TO cleanroom_hooks;
GRANT INSERT, UPDATE ON cleanroom.look_wish TO cleanroom_hooks;
GRANT DELETE ON cleanroom.look_wish TO cleanroom_refs;

-- What tells others reads what it tells of, and writes whom it tells of what and what came of that.
GRANT SELECT ON cleanroom.product, cleanroom.release, cleanroom.build, cleanroom.attempt, cleanroom.comparison,
                cleanroom.generation, cleanroom.channel_release, cleanroom.repository_request, cleanroom.state_change,
                cleanroom.standing, cleanroom.notification, cleanroom.service TO cleanroom_notifications;
GRANT UPDATE (told_at), DELETE ON cleanroom.state_change TO cleanroom_notifications;
GRANT DELETE ON cleanroom.notification TO cleanroom_notifications;
GRANT INSERT, UPDATE ON cleanroom.notification, cleanroom.standing, cleanroom.service TO cleanroom_notifications;

-- The ref watch records refs.
GRANT INSERT ON cleanroom.ref_event, cleanroom.audit TO cleanroom_refs;
GRANT DELETE ON cleanroom.ref_event TO cleanroom_refs;
GRANT UPDATE (commit, previous_commit, change, tag_kind, tagger, message, signature, tagged_at, state, why, not_before,
              settled_at) ON cleanroom.ref_event TO cleanroom_refs;
GRANT UPDATE (watch_error, watched_at) ON cleanroom.product TO cleanroom_refs;
GRANT INSERT, UPDATE ON cleanroom.service TO cleanroom_refs;

-- The master claims events, records builds, and asks for publication. What was published is not its business.
GRANT UPDATE (state, why, not_before, settled_at) ON cleanroom.ref_event TO cleanroom_master;
GRANT INSERT, UPDATE ON cleanroom.release, cleanroom.trial, cleanroom.attempt, cleanroom.phase, cleanroom.step, cleanroom.service,
                        cleanroom.host TO cleanroom_master;
GRANT INSERT ON cleanroom.build, cleanroom.test_case, cleanroom.artifact, cleanroom.audit,
                cleanroom.comparison, cleanroom.package_state TO cleanroom_master;
GRANT INSERT, DELETE ON cleanroom.gate_result, cleanroom.product_need, cleanroom.dependent_choice TO cleanroom_master;
GRANT INSERT ON cleanroom.release_wait TO cleanroom_master;
GRANT INSERT, UPDATE ON cleanroom.night TO cleanroom_master;
GRANT UPDATE (outcome, runs, failures) ON cleanroom.test_case TO cleanroom_master;
GRANT INSERT, UPDATE ON cleanroom.reproduction TO cleanroom_master;
GRANT INSERT, DELETE ON cleanroom.union_choice, cleanroom.union_member TO cleanroom_master;
GRANT UPDATE (basis) ON cleanroom.union_choice TO cleanroom_master;
GRANT INSERT ON cleanroom.reproduced_artifact TO cleanroom_master;
GRANT UPDATE (trial_id) ON cleanroom.canary TO cleanroom_master;
GRANT INSERT (release_id, channel, requested_by) ON cleanroom.publication TO cleanroom_master;
GRANT UPDATE (removed_at) ON cleanroom.artifact TO cleanroom_master;
GRANT INSERT, UPDATE ON cleanroom.disk, cleanroom.worker TO cleanroom_master;
GRANT INSERT, UPDATE ON cleanroom.bisection_probe TO cleanroom_master;
GRANT UPDATE ON cleanroom.bisection TO cleanroom_master;
GRANT UPDATE (verdict, why, judged_at) ON cleanroom.bisection_candidate TO cleanroom_master;
GRANT INSERT, DELETE ON cleanroom.package, cleanroom.conflict_check TO cleanroom_master;
GRANT INSERT ON cleanroom.path, cleanroom.package_file, cleanroom.conflict TO cleanroom_master;

-- The publisher publishes. What was built is not its business.
GRANT INSERT, UPDATE, DELETE ON cleanroom.generation TO cleanroom_publisher;
GRANT INSERT, DELETE ON cleanroom.channel_package TO cleanroom_publisher;
GRANT UPDATE (removed_in, withdrawn_by) ON cleanroom.channel_package TO cleanroom_publisher;
GRANT INSERT, DELETE ON cleanroom.channel_release TO cleanroom_publisher;
GRANT UPDATE (removed_in, removal, why) ON cleanroom.channel_release TO cleanroom_publisher;
GRANT INSERT ON cleanroom.security_fix TO cleanroom_publisher;
GRANT INSERT ON cleanroom.canary TO cleanroom_publisher;
GRANT UPDATE (problem) ON cleanroom.canary TO cleanroom_publisher;
GRANT UPDATE (state, why, result, generation, finished_at) ON cleanroom.repository_request TO cleanroom_publisher;
GRANT INSERT, UPDATE ON cleanroom.signing_key, cleanroom.provenance TO cleanroom_publisher;
GRANT UPDATE (state, generation, why) ON cleanroom.publication TO cleanroom_publisher;
GRANT UPDATE (state, why, hold_reason) ON cleanroom.release TO cleanroom_publisher;
GRANT INSERT ON cleanroom.audit TO cleanroom_publisher;
GRANT INSERT, UPDATE ON cleanroom.delivery TO cleanroom_publisher;
GRANT INSERT, UPDATE, DELETE ON cleanroom.delivered_file TO cleanroom_publisher;
-- It looks at what leaves together, and says which of it does not.
GRANT INSERT ON cleanroom.package, cleanroom.path, cleanroom.package_file, cleanroom.conflict TO cleanroom_publisher;
GRANT INSERT, DELETE ON cleanroom.conflict_check TO cleanroom_publisher;
GRANT UPDATE (state, why, evaluated_at) ON cleanroom.gate_result TO cleanroom_publisher;
GRANT INSERT, UPDATE ON cleanroom.service TO cleanroom_publisher;

-- The web status lets people in, and does for them what they may do on the command line. Accounts are the owner's
-- business: it makes none with a password, and grants nothing but reading to one that came by OpenID Connect.
GRANT INSERT (name, issuer, subject, created_by) ON cleanroom.account TO cleanroom_access;
GRANT INSERT (account, role, granted_by) ON cleanroom.account_grant TO cleanroom_access;
DROP POLICY IF EXISTS access_reads ON cleanroom.account_grant;
CREATE POLICY access_reads ON cleanroom.account_grant FOR SELECT TO cleanroom_access USING (true);
DROP POLICY IF EXISTS access_grants ON cleanroom.account_grant;
CREATE POLICY access_grants ON cleanroom.account_grant FOR INSERT TO cleanroom_access WITH CHECK (role = 'reader');
GRANT INSERT (secret, account, address), UPDATE (seen_at), DELETE ON cleanroom.session TO cleanroom_access;
GRANT EXECUTE ON FUNCTION cleanroom.change_password TO cleanroom_access;
GRANT INSERT (account, name, secret, role, product, created_by, expires_at), UPDATE (used_at, revoked_at)
    ON cleanroom.api_token TO cleanroom_access;
GRANT INSERT (account, address), DELETE ON cleanroom.sign_in_failure TO cleanroom_access;
GRANT INSERT (actor, action, subject, reason, detail, allowed) ON cleanroom.audit TO cleanroom_access;
GRANT UPDATE (state, why, hold_reason, approved_by, approved_at, finished_at) ON cleanroom.release TO cleanroom_access;
GRANT INSERT ON cleanroom.attempt TO cleanroom_access;
GRANT INSERT, DELETE ON cleanroom.gate_result TO cleanroom_access;
GRANT INSERT ON cleanroom.gate_waiver TO cleanroom_access;
GRANT UPDATE (state) ON cleanroom.host TO cleanroom_access;
GRANT DELETE ON cleanroom.dependent_choice, cleanroom.union_choice, cleanroom.conflict_check TO cleanroom_access;
GRANT INSERT (release_id, channel, requested_by), UPDATE (state, why, requested_by, requested_at)
    ON cleanroom.publication TO cleanroom_access;
GRANT INSERT (kind, actor, reason, target, release_id, channel, forced, parameters) ON cleanroom.repository_request
    TO cleanroom_access;
-- Of the publisher it asks to take something back, and nothing about keys.
DROP POLICY IF EXISTS others ON cleanroom.repository_request;
CREATE POLICY others ON cleanroom.repository_request
    TO cleanroom_master, cleanroom_publisher, cleanroom_web, cleanroom_refs USING (true);
DROP POLICY IF EXISTS access_reads ON cleanroom.repository_request;
CREATE POLICY access_reads ON cleanroom.repository_request FOR SELECT TO cleanroom_access USING (true);
DROP POLICY IF EXISTS access_asks ON cleanroom.repository_request;
CREATE POLICY access_asks ON cleanroom.repository_request FOR INSERT TO cleanroom_access
    WITH CHECK (kind IN ('rollback', 'withdraw'));
-- An approval may have what was built be built again, where a recipe asks for that.
GRANT INSERT ON cleanroom.trial, cleanroom.build, cleanroom.reproduction TO cleanroom_access;

-- Buildbot keeps its own state in a schema of its own.
CREATE SCHEMA IF NOT EXISTS buildbot AUTHORIZATION cleanroom_master;
