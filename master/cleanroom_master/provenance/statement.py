"""The statement about how packages were built, made of rows alone.

Sources of the format: the in-toto attestation framework's Statement v1, and SLSA's provenance v1
(https://slsa.dev/spec/v1.0/provenance). Names that begin with `cleanroom_` are our own extensions of it.

The control plane says all of this from what it did itself. What only a guest can know (which packages it had, what its
tests printed) is marked as reported by the guest.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import metadata
from typing import Any
from urllib.parse import quote, urlsplit, urlunsplit

from packageurl import PackageURL

from cleanroom_db.gates import GateResult
from cleanroom_db.provenance import BUILD, RecordedBuild, RecordedFile, RecordedPhase, RecordedStep, Source
from cleanroom_recipes.model import RefKind

STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
PREDICATE_TYPE = "https://slsa.dev/provenance/v1"
# The page of a repository that explains its statements; builders and the type of a build are places on it.
PAGE = "provenance.html"
BUILD_TYPE = f"{PAGE}#build-type-v1"
GUEST = {"cleanroom_reportedBy": "guest"}
_RECORDS = ("buildinfo", "changes")

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Subject:
    """A package as it is published, and its bill of materials by name and SHA-256."""

    file: str
    sha256: str
    bill: str
    bill_sha256: str


@dataclass(frozen=True, slots=True)
class Facts:
    """All that a statement is made of. `requested_by` is who asked for the publication."""

    url: str
    source: Source
    build: RecordedBuild
    gates: Sequence[GateResult]
    requested_by: str


def write(facts: Facts, subjects: Iterable[Subject]) -> bytes:
    """The statement about some packages of one build, as canonical JSON."""
    there = sorted(subjects, key=lambda one: one.file)
    value = {
        "_type": STATEMENT_TYPE,
        "subject": [{"name": one.file, "digest": {"sha256": one.sha256}} for one in there],
        "predicateType": PREDICATE_TYPE,
        "predicate": {"buildDefinition": _definition(facts), "runDetails": _run(facts, there)},
    }
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def builder(url: str, isolation: str) -> str:
    """The name of the builder that gives guests of an isolation: how much it can be trusted follows from that."""
    return f"{url}/{PAGE}#builder-{isolation}"


def public_url(url: str) -> str:
    """The address of a repository without what may be a password in it."""
    parts = urlsplit(url)
    if not parts.scheme or "@" not in parts.netloc:
        return url
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))


def _definition(facts: Facts) -> Json:
    """What was to be built: what whoever tags decides (external), and what the site does (internal)."""
    source, build = facts.source, facts.build
    return {
        "buildType": f"{facts.url}/{BUILD_TYPE}",
        "externalParameters": {
            "product": source.product,
            "repository": public_url(source.url),
            "ref": source.ref,
            "commit": source.commit,
            "target": build.target,
            "recipe": {"digest": {"sha256": source.recipe_digest}},
        },
        "internalParameters": {
            "version": source.version,
            "channel": source.channel,
            "recordedBy": source.recorded_by,
            "recordedAt": _time(source.recorded_at),
            "requestedBy": source.requested_by,
            "publicationRequestedBy": facts.requested_by,
            "tag": {
                "kind": source.tag_kind,
                "tagger": source.tagger,
                "taggedAt": _time(source.tagged_at),
                "signature": source.signature,
            },
        },
        "resolvedDependencies": [_commit(source), *_images(build), *_environment(build)],
    }


def _commit(source: Source) -> Json:
    ref = f"refs/tags/{source.ref}" if source.kind == RefKind.TAG else source.ref
    return {
        "name": "source",
        "uri": f"git+{quote(public_url(source.url), safe=':/@~+%')}@{quote(ref)}",
        "digest": {"gitCommit": source.commit},
    }


def _images(build: RecordedBuild) -> list[Json]:
    found = {(phase.image, phase.image_digest) for phase in build.phases if phase.image and phase.image_digest}
    return [{"name": f"image {name}", "digest": {"sha256": digest}} for name, digest in sorted(found)]


def _environment(build: RecordedBuild) -> list[Json]:
    """The packages with which it was built, in exact versions."""
    distribution = build.target.partition("/")[0]
    return [
        {"uri": package_url(name, version, distribution), "annotations": GUEST}
        for name, version in sorted(build.environment.items())
    ]


def package_url(name: str, version: str, distribution: str) -> str:
    """The package URL of a package that a guest has; rpm packages are called `rpm:` and their name."""
    kind, _, bare = name.rpartition(":")
    namespace = None if kind == "rpm" else distribution.partition("-")[0]
    return PackageURL(kind or "deb", namespace, bare, version, {"distro": distribution}).to_string()


def _run(facts: Facts, subjects: Sequence[Subject]) -> Json:
    """How it was built, by whom, and what else came of it."""
    build = facts.build
    made = next((phase.isolation for phase in build.phases if phase.name == BUILD and phase.isolation), None)
    return {
        "builder": {
            "id": builder(facts.url, made or "unknown"),
            "version": {"cleanroom": metadata.version("cleanroom")},
        },
        "metadata": {
            "invocationId": f"{facts.source.product}/{facts.source.ref}/{build.target}/{build.number}",
            "startedOn": _time(build.started_at),
            "finishedOn": _time(build.finished_at),
        },
        "byproducts": [
            *(_bill(one) for one in subjects),
            *(_record(file) for file in build.files if file.kind in _RECORDS),
        ],
        "cleanroom_outcome": build.outcome,
        "cleanroom_worker": build.worker,
        "cleanroom_phases": [_phase(phase, build.steps.get(phase.id, ())) for phase in build.phases],
        "cleanroom_gates": [
            {"gate": one.gate, "target": one.target, "state": str(one.state), "why": one.why} for one in facts.gates
        ],
    }


def _bill(one: Subject) -> Json:
    return {
        "name": one.bill,
        "digest": {"sha256": one.bill_sha256},
        "mediaType": "application/vnd.cyclonedx+json",
        "annotations": {"cleanroom_of": one.file},
    }


def _record(file: RecordedFile) -> Json:
    return {"name": file.file, "digest": {"sha256": file.sha256}, "annotations": GUEST}


def _phase(phase: RecordedPhase, steps: Sequence[RecordedStep]) -> Json:
    counts = {word: getattr(phase, f"tests_{word}") for word in ("passed", "failed", "skipped", "flaky")}
    return {
        "name": phase.name,
        "replay": phase.replay,
        "outcome": phase.outcome,
        "why": phase.why,
        "startedOn": _time(phase.started_at),
        "finishedOn": _time(phase.finished_at),
        "isolation": phase.isolation,
        "network": phase.network,
        "image": None if phase.image is None else {"name": phase.image, "digest": {"sha256": phase.image_digest}},
        "reset": {"method": phase.reset_method, "seconds": phase.reset_seconds},
        # Exit statuses are what the host saw; which test cases there were is what the guest printed.
        "tests": {**counts, **GUEST} if any(counts.values()) else counts,
        "steps": [_step(step) for step in steps],
    }


def _step(step: RecordedStep) -> Json:
    log: Mapping[str, Any] = {} if step.log_sha256 is None else {"log": {"sha256": step.log_sha256}}
    return {"name": step.name, "outcome": step.outcome, "exitStatus": step.exit_status, **log}


def _time(moment: datetime | None) -> str | None:
    """A time as the framework writes it: in UTC and whole seconds."""
    return None if moment is None else moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
