-- Who may do what. Applied after every migration; each role gets exactly this.

REVOKE ALL ON ALL TABLES IN SCHEMA cleanroom FROM cleanroom_master, cleanroom_publisher, cleanroom_web, cleanroom_refs;
GRANT USAGE ON SCHEMA cleanroom TO cleanroom_master, cleanroom_publisher, cleanroom_web, cleanroom_refs;
GRANT SELECT ON ALL TABLES IN SCHEMA cleanroom TO cleanroom_master, cleanroom_publisher, cleanroom_web, cleanroom_refs;
REVOKE ALL ON ALL TABLES IN SCHEMA cleanroom FROM cleanroom_hooks, cleanroom_notifications;
GRANT USAGE ON SCHEMA cleanroom TO cleanroom_hooks, cleanroom_notifications;

-- What receives webhooks notes that they came, and wishes for a look at a repository; it reads no more than it must.
GRANT SELECT ON cleanroom.product, cleanroom.webhook_delivery, cleanroom.look_wish TO cleanroom_hooks;
GRANT INSERT, DELETE ON cleanroom.webhook_delivery TO cleanroom_hooks;
GRANT INSERT, UPDATE ON cleanroom.look_wish TO cleanroom_hooks;
GRANT DELETE ON cleanroom.look_wish TO cleanroom_refs;

-- What tells others reads what it tells of, and writes whom it tells of what and what came of that.
GRANT SELECT ON cleanroom.product, cleanroom.release, cleanroom.build, cleanroom.attempt, cleanroom.comparison,
                cleanroom.generation, cleanroom.channel_release, cleanroom.repository_request, cleanroom.state_change,
                cleanroom.standing, cleanroom.notification, cleanroom.service TO cleanroom_notifications;
GRANT UPDATE (told_at) ON cleanroom.state_change TO cleanroom_notifications;
GRANT INSERT, UPDATE ON cleanroom.notification, cleanroom.standing, cleanroom.service TO cleanroom_notifications;

-- The ref watch records refs.
GRANT INSERT ON cleanroom.ref_event, cleanroom.audit TO cleanroom_refs;
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
GRANT INSERT (release_id, channel, requested_by) ON cleanroom.publication TO cleanroom_master;
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
GRANT UPDATE (state, why, result, generation, finished_at) ON cleanroom.repository_request TO cleanroom_publisher;
GRANT UPDATE (state, generation, why) ON cleanroom.publication TO cleanroom_publisher;
GRANT UPDATE (state, why) ON cleanroom.release TO cleanroom_publisher;
GRANT INSERT ON cleanroom.audit TO cleanroom_publisher;
-- It looks at what leaves together, and says which of it does not.
GRANT INSERT ON cleanroom.package, cleanroom.path, cleanroom.package_file, cleanroom.conflict TO cleanroom_publisher;
GRANT INSERT, DELETE ON cleanroom.conflict_check TO cleanroom_publisher;
GRANT UPDATE (state, why, evaluated_at) ON cleanroom.gate_result TO cleanroom_publisher;
GRANT INSERT, UPDATE ON cleanroom.service TO cleanroom_publisher;

-- Buildbot keeps its own state in a schema of its own.
CREATE SCHEMA IF NOT EXISTS buildbot AUTHORIZATION cleanroom_master;
