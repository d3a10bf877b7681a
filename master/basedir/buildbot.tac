# Twisted's way to start Buildbot's master: `twistd --nodaemon --python=buildbot.tac`.
from buildbot.master import BuildMaster
from twisted.application import service
from twisted.internet import reactor

from cleanroom_base.settings import load
from cleanroom_master.places import Places
from cleanroom_workers import reactor_clock

places = Places(load())
basedir, configfile = str(places.buildbot), str(places.master_configuration)
application = service.Application('buildmaster')  # Buildbot looks for these very words
BuildMaster(basedir, configfile).setServiceParent(application)
reactor_clock.watch(reactor)
