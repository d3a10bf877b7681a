# Twisted's way to start this host's Buildbot worker: `twistd --nodaemon --python=buildbot.tac`.
from twisted.application import service
from twisted.internet import reactor

from cleanroom_base.settings import load
from cleanroom_workers import reactor_clock
from cleanroom_workers.service import worker

application = service.Application("cleanroom-worker")
worker(load()).setServiceParent(application)
reactor_clock.watch(reactor)
