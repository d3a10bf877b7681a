"""When things run and what leaves: the Buildbot master, the ref watch, the verdict, the publisher, the CLI."""
