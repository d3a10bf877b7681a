"""What Prometheus asks for. Source of the names: its "Metric and label naming" and its text format.

Counting all rows costs more on a long record than on a short one, so that what was counted is good for some seconds.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from cleanroom_base.errors import InfrastructureError
from cleanroom_db import measures
from cleanroom_db.connection import Database
from cleanroom_db.measures import Histogram, Measures

PHASE_BOUNDS = (1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0, 3600.0, 10800.0)
RESET_BOUNDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
_GOOD_FOR = 10.0
# Phases are named by recipes: so many names get a series of their own, those that ran most often.
_NAMES = 30
_OTHER = "other"


class Meter(Collector):
    """What a site measures."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._lock = threading.Lock()
        self._text = b""
        self._until = 0.0
        self._registry = CollectorRegistry()
        self._registry.register(self)

    def text(self) -> bytes:
        """All of it in Prometheus's text format."""
        with self._lock:
            if time.monotonic() >= self._until:
                self._text = generate_latest(self._registry)
                self._until = time.monotonic() + _GOOD_FOR
            return self._text

    def describe(self) -> Iterator[Metric]:
        """Nothing: otherwise the library would ask for all of it once more."""
        yield from ()

    def collect(self) -> Iterator[Metric]:
        """Everything; without the database, that it is away."""
        try:
            found = measures.measure(self._database, PHASE_BOUNDS, RESET_BOUNDS)
        except InfrastructureError:
            yield _gauge("database_up", "Whether the database answers.", 0)
            return
        yield _gauge("database_up", "Whether the database answers.", 1)
        yield from _queue(found)
        yield _counter("attempts", "Attempts of builds that ended.", "outcome", found.attempts)
        yield from _histograms("phase_duration_seconds", "How long phases took.", "phase", found.phases, PHASE_BOUNDS)
        yield from _histograms(
            "reset_duration_seconds", "How long it took to have a clean guest.", "isolation", found.resets, RESET_BOUNDS
        )
        yield _counter("publications", "Releases that came into a channel.", "channel", found.publications)
        yield _gauge("repository_generation", "The number of the generation that consumers see.", found.generation)
        yield _gauges("notifications", "Messages to others.", "state", found.notifications)
        yield _gauges("service_silent_seconds", "Time since a service was last heard of.", "service", found.services)
        yield from _hosts(found)
        free = {one.place: float(one.free) for one in found.disks}
        yield _gauges("disk_free_bytes", "Free space of a file system, as the master saw it last.", "place", free)
        low = {one.place: float(one.low_since is not None) for one in found.disks}
        yield _gauges("disk_low", "Whether nothing new is begun for want of free space: 1.", "place", low)


def _queue(found: Measures) -> Iterator[Metric]:
    yield _gauges("releases", "Releases that are not at their end.", "state", found.releases)
    yield _gauge("queue_length", "Attempts that wait for a worker.", found.waiting)
    yield _gauge("queue_longest_wait_seconds", "How long the first of them has waited.", found.longest_wait)
    yield _gauge("attempts_running", "Attempts that are worked on.", found.running)


def _hosts(found: Measures) -> Iterator[Metric]:
    states = GaugeMetricFamily("cleanroom_host_state", "The state of a host: 1.", labels=["host", "state"])
    processors = GaugeMetricFamily("cleanroom_host_processors", "Processors of a host.", labels=["host"])
    silent = GaugeMetricFamily("cleanroom_host_silent_seconds", "Time since a host was heard of.", labels=["host"])
    guests = GaugeMetricFamily(
        "cleanroom_guests", "Guests of a host: free places, kept ready, running, drained.", labels=["host", "state"]
    )
    for host in found.hosts:
        for word, number in host.guests.items():
            guests.add_metric([host.name, word], number)
        states.add_metric([host.name, host.state], 1)
        processors.add_metric([host.name], host.processors)
        silent.add_metric([host.name], host.silent)
    yield from (states, processors, silent, guests)


def _gauge(name: str, about: str, value: float) -> Metric:
    return GaugeMetricFamily(f"cleanroom_{name}", about, value=value)


def _gauges(name: str, about: str, label: str, values: Mapping[str, float]) -> Metric:
    family = GaugeMetricFamily(f"cleanroom_{name}", about, labels=[label])
    for word, value in sorted(values.items()):
        family.add_metric([word], value)
    return family


def _counter(name: str, about: str, label: str, values: Mapping[str, int]) -> Metric:
    family = CounterMetricFamily(f"cleanroom_{name}", about, labels=[label])
    for word, value in sorted(values.items()):
        family.add_metric([word], value)
    return family


def _histograms(
    name: str, about: str, label: str, found: Mapping[str, Histogram], bounds: tuple[float, ...]
) -> Iterator[Metric]:
    family = HistogramMetricFamily(f"cleanroom_{name}", about, labels=[label])
    named = [*(f"{bound:g}" for bound in bounds), "+Inf"]
    for word, one in sorted(_few(found).items()):
        counts = [sum(one.counts[: place + 1]) for place in range(len(one.counts))]
        family.add_metric([word], list(zip(named, counts, strict=True)), one.total)
    yield family


def _few(found: Mapping[str, Histogram]) -> dict[str, Histogram]:
    """The histograms of the most frequent words; all others together are one."""
    order = sorted(found, key=lambda word: (-sum(found[word].counts), word))
    few = {word: found[word] for word in order[:_NAMES]}
    rest = [found[word] for word in order[_NAMES:]]
    if rest:
        counts = tuple(sum(column) for column in zip(*(one.counts for one in rest), strict=True))
        few[_OTHER] = Histogram(counts, sum(one.total for one in rest))
    return few
