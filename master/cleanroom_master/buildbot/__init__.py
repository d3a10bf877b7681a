"""Buildbot's master, configured by us: it schedules, streams logs and retries; the rows are the record.

`configuration` is a pure function from what `inputs` read; `scheduler` turns due attempts into Buildbot's build
requests; `steps` run an attempt's phases on a worker. All database work is done by `cleanroom_master.dispatch`
in threads: nothing blocks the reactor.
"""
