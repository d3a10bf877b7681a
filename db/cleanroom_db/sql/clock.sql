-- Times that were written by a clock which went back since would else be waited for as long as it went back.

-- name: attempts
UPDATE cleanroom.attempt SET not_before = now() + (not_before - queued_at)
 WHERE finished_at IS NULL AND lease_owner IS NULL
   AND queued_at > now() + make_interval(secs => %(tolerance)s) AND not_before >= queued_at

-- name: leases
-- Whoever lives renews it; whoever does not is waited for as long as a lease is.
UPDATE cleanroom.attempt SET lease_expires_at = now() + make_interval(secs => %(lease)s)
 WHERE finished_at IS NULL AND lease_owner IS NOT NULL
   AND lease_expires_at > now() + make_interval(secs => %(lease)s + %(tolerance)s)

-- name: ref_events
UPDATE cleanroom.ref_event SET not_before = now() + greatest(not_before - recorded_at, interval '0')
 WHERE state = 'recorded'
   AND recorded_at > now() + make_interval(secs => %(tolerance)s) AND not_before >= recorded_at
