"""A release with everything about it, in the form that `release show --format json` prints and the web shows.

The form is a contract: keys are added, never renamed. Times are ISO 8601 in UTC, durations are seconds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

from cleanroom_base.errors import InputError
from cleanroom_db import canaries, comparisons, gates, provenance, reproductions, unions, way
from cleanroom_db.canaries import Canary
from cleanroom_db.comparisons import Base, Recorded
from cleanroom_db.connection import Cursor, Database, Row, plain
from cleanroom_db.reproductions import Reproduction
from cleanroom_db.sql import load
from cleanroom_db.states import ReleaseState

_SQL = load("view")

View = dict[str, Any]

# The failing test cases of a phase that are shown; `release compare` and the database know all.
FAILING = 20
# Builds of which one sentence tells.
_TOLD = 20
# A person can hold it, or keep it held.
_CAN_BE_HELD = (ReleaseState.WAITING, ReleaseState.BUILDING, ReleaseState.HELD)
_COUNTS = ("regressed", "fixed", "still_failing", "flaky", "new", "gone", "slower", "same")


def release_view(database: Database, product: str, ref: str) -> View:
    """Everything about a release, as plain values. Raises InputError if there is none."""
    with database.transaction() as cursor:
        release = cursor.row(_SQL["release"], product=plain(product), ref=plain(ref))
        if release is None:
            raise InputError(
                f"there is no release of {product} {ref}",
                hint=f"'cleanroom ref list {product}' shows what was recorded, and what became of it",
            )
        builds = _builds(cursor, release["id"])
        published = cursor.rows(_SQL["published"], release=release["id"])
        removed = cursor.rows(_SQL["removed"], release=release["id"])
        fix = cursor.value(_SQL["security_fix"], release=release["id"])
        held_to = _gates(cursor, release)
        waivers = gates.waivers(cursor, release["id"])
        together = unions.tried(cursor, release["id"])
        consumers = canaries.of_release(cursor, release["id"])
        signed = provenance.of_release(cursor, release["id"])
    view = _chosen(release, "id product ref commit version state kind channel requested_by tag_kind tagger signature")
    view["why"] = _why(release, builds)
    view |= _times(release, "tagged_at recorded_at claimed_at created_at finished_at")
    view["builds"] = builds
    view["published"] = [
        {"channel": row["channel"], "generation": row["generation"], "at": iso(row["at"])} for row in published
    ]
    view["removed"] = [
        {**_chosen(row, "channel generation why"), "how": row["removal"], "at": iso(row["at"])} for row in removed
    ]
    view["security_fix"] = fix
    view["provenance"] = [
        {
            **_chosen(row, "channel target format name file sha256 statement_sha256 bill_sha256 signed_by"),
            "signed_at": iso(row["signed_at"]),
        }
        for row in signed
    ]
    view["comparison"] = _compared([build["comparison"] for build in builds])
    view["comparison_with_previous"] = _compared([build["comparison_with_previous"] for build in builds])
    view["gates"] = held_to
    view["union"] = _union(together)
    view["canaries"] = [canary_view(one) for one in consumers]
    view["waivers"] = [
        {
            **{name: getattr(waiver, name) for name in ("gate", "channel", "actor", "reason", "active")},
            "waived_at": iso(waiver.waived_at),
            "expires_at": iso(waiver.expires_at),
        }
        for waiver in waivers
    ]
    view["next"] = way.what_next(view, held=bool(release["hold_reason"]))
    return view


def iso(time: datetime | None) -> str | None:
    """A time as ISO 8601 in UTC, such as 2030-01-31T12:00:00.123456Z."""
    return None if time is None else time.astimezone(UTC).isoformat().replace("+00:00", "Z")


def _builds(cursor: Cursor, release_id: int) -> list[View]:
    """The builds of a release, each with its attempts, and the latest of them in full."""
    attempts = _grouped(cursor.rows(_SQL["attempts"], release=release_id), lambda row: row["target"])
    latest = [rows[-1]["id"] for rows in attempts.values()]
    steps = _grouped(cursor.rows(_SQL["steps"], attempts=latest), lambda row: row["phase_id"])
    rows = cursor.rows(_SQL["phases"], attempts=latest)
    phases = _grouped([row for row in rows if not row["replay"]], lambda row: row["attempt_id"])
    replays = _grouped([row for row in rows if row["replay"]], lambda row: (row["attempt_id"], row["name"]))
    # Of a phase that goes on it is not counted yet how many tests failed.
    told = any(row["outcome"] is None or row["tests_failed"] or row["tests_flaky"] for row in rows)
    failing = _of_phases(cursor, "failing", latest, most=FAILING) if told else {}
    replayed = any(row["runs"] is not None for row in rows)
    flaky = _of_phases(cursor, "flaky", latest, limit=comparisons.NAMES) if replayed else {}
    compared = {(one.attempt_id, one.base): one for one in comparisons.recorded(cursor, latest)}
    again = reproductions.of_attempts(cursor, latest)
    artifacts = _grouped(cursor.rows(_SQL["artifacts"], attempts=latest), lambda row: row["attempt_id"])
    return [
        _build(
            target,
            rows,
            [
                _phase(phase, steps.get(phase["id"], []), failing.get(phase["id"], []))
                | _repeated(phase, replays.get((phase["attempt_id"], phase["name"]), []), steps, flaky)
                for phase in phases.get(rows[-1]["id"], [])
            ],
            artifacts.get(rows[-1]["id"], []),
        )
        | {
            "comparison": _comparison(compared.get((rows[-1]["id"], Base.PUBLISHED))),
            "comparison_with_previous": _comparison(compared.get((rows[-1]["id"], Base.PREVIOUS))),
            "reproduction": _reproduction(again.get(rows[-1]["id"])),
        }
        for target, rows in attempts.items()
    ]


def _of_phases(cursor: Cursor, block: str, attempts: list[int], **more: int) -> Mapping[Any, list[Row]]:
    return _grouped(cursor.rows(_SQL[block], attempts=attempts, **more), lambda row: row["phase_id"])


def _comparison(found: Recorded | None) -> View | None:
    """What became of a build's tests since another release; None where it was not compared."""
    if found is None:
        return None
    return {
        "against": found.against_ref,
        **{name: getattr(found, name) for name in _COUNTS},
        "phases": list(found.phases),
        "names": {name: list(found.names.get(name, ())) for name in _COUNTS if name != "same"},
    }


def _reproduction(found: Reproduction | None) -> View | None:
    """What became of building the artifacts again; None where nobody asked for that."""
    if found is None:
        return None
    return {
        "trial": found.trial,
        "outcome": found.outcome,
        "why": found.why,
        "compared_at": iso(found.compared_at),
        "report": found.report,
        "artifacts": [
            {"file": pair.file, "same": pair.same, "sha256": pair.sha256, "again_sha256": pair.again_sha256}
            for pair in found.artifacts
        ],
    }


def _union(found: unions.Tried | None) -> View | None:
    """How a release was installed together with others; None where that was not chosen."""
    if found is None:
        return None
    return {
        "trial": found.trial,
        "channel": found.channel,
        "problem": found.problem,
        "chosen_at": iso(found.chosen_at),
        "left_out": list(found.left_out),
        "note": found.note,
        "targets": [
            {
                **{name: getattr(one, name) for name in ("target", "outcome", "why", "log")},
                "own": list(one.own),
                "others": list(one.others),
            }
            for one in found.targets
        ],
    }


def canary_view(one: Canary) -> View:
    """How consumers did with a release in a channel."""
    return {
        "channel": one.channel,
        "generation": one.generation,
        "state": one.state,
        "said": one.said,
        "trial": one.trial,
        "finished_at": iso(one.finished_at),
        "targets": [
            {
                **{name: getattr(target, name) for name in ("target", "client", "outcome", "why")},
                "phases": [dict(phase) for phase in target.phases],
            }
            for target in one.targets
        ],
    }


def _compared(builds: list[View | None]) -> View | None:
    """The comparisons of all builds together; None until one was compared.

    `against` is the first release that one of them was compared with: the builds' own say which was whose.
    """
    found = [build for build in builds if build is not None]
    if not found:
        return None
    return {
        "against": next((build["against"] for build in found if build["against"] is not None), None),
        **{name: sum(build[name] for build in found) for name in _COUNTS},
        "phases": list(dict.fromkeys(phase for build in found for phase in build["phases"])),
        "names": {
            name: list(dict.fromkeys(case for build in found for case in build["names"][name]))[: comparisons.NAMES]
            for name in _COUNTS
            if name != "same"
        },
    }


def _gates(cursor: Cursor, release: Row) -> list[View]:
    """Every gate with what was found of it; without a state before its release is judged."""
    demanded = release["gates"]
    results = gates.results(cursor, release["id"], demanded)
    judged = {result.gate for result in results}
    waiting = [{"gate": gate, "target": None, "state": None, "why": "", "evaluated_at": None} for gate in demanded]
    return [gate for gate in waiting if gate["gate"] not in judged] + [
        {
            "gate": result.gate,
            "target": result.target,
            "state": str(result.state),
            "why": result.why,
            "evaluated_at": iso(result.evaluated_at),
        }
        for result in results
    ]


def _build(target: str, attempts: list[Row], phases: list[View], artifacts: list[Row]) -> View:
    latest = attempts[-1]
    images = [phase["image"] for phase in phases if phase["image"] is not None]
    return {
        "target": target,
        "attempt": latest["number"],
        **_chosen(latest, "outcome why worker buildbot_url pauses"),
        "isolation": latest["isolation"] or next((phase["isolation"] for phase in phases), None),
        "image": images[-1] if images else None,
        **_times(latest, "queued_at not_before started_at finished_at"),
        "planned": list(latest["planned"]),
        "phases": phases,
        "artifacts": [
            _chosen(row, "file sha256 size kind phase replay package version architecture") for row in artifacts
        ],
        "attempts": [
            {**_chosen(row, "id number outcome why worker"), **_times(row, "queued_at started_at finished_at")}
            for row in attempts
        ],
    }


def _repeated(phase: Row, replays: list[Row], steps: Mapping[Any, list[Row]], flaky: Mapping[Any, list[Row]]) -> View:
    """What was learnt of a phase by running it again; `runs` is null where it was not, or where no replay counts."""
    return {
        **_chosen(phase, "runs failures"),
        "replays": [{**_chosen(row, "replay alone"), **_phase(row, steps.get(row["id"], []), [])} for row in replays],
        "repeated_tests": [_chosen(case, "step name outcome runs failures") for case in flaky.get(phase["id"], [])],
    }


def _phase(row: Row, steps: list[Row], failing: list[Row]) -> View:
    image = None if row["image"] is None else {"name": row["image"], "digest": row["image_digest"]}
    return {
        **_chosen(row, "name outcome why isolation network reset_method reset_seconds seconds command_seconds"),
        "image": image,
        "package_state": row["package_state"],
        **_times(row, "started_at finished_at"),
        "tests": {word: row[f"tests_{word}"] for word in ("passed", "failed", "skipped", "flaky")},
        "failing": [_chosen(case, "step name outcome seconds message line") for case in failing],
        "steps": [
            {
                **_chosen(step, "id name outcome exit_status why seconds remark"),
                **_times(step, "started_at"),
                "log": {
                    "sha256": step["log_sha256"],
                    "size": step["log_size"],
                    "truncated": step["log_truncated"],
                },
            }
            for step in steps
        ],
    }


def _why(release: Row, builds: list[View]) -> str:
    """One sentence: why the release is where it is, and by whose word it will be held, if it is."""
    told, held = _reached(release, builds), release["hold_reason"]
    # What was settled since somebody held it says so itself.
    if not held or held in told or release["state"] not in _CAN_BE_HELD:
        return told
    return f"{told}; {'held' if release['state'] == ReleaseState.HELD else 'it will be held'}: {held}"


def _reached(release: Row, builds: list[View]) -> str:
    # All built, and a gate waits for something else: the verdict says for what.
    built = release["state"] == ReleaseState.BUILDING and all(build["outcome"] is not None for build in builds)
    if release["state"] not in (ReleaseState.WAITING, ReleaseState.BUILDING) or (built and release["why"]):
        return str(release["why"])
    if release["waits_for"] and all(build["started_at"] is None for build in builds):
        return f"waits for {', '.join(release['waits_for'])}, on which it depends"
    if builds and all(build["outcome"] is not None for build in builds):
        return str(release["why"])
    more = [f"and {len(builds) - _TOLD} more builds"] if len(builds) > _TOLD else []
    return "; ".join([*(f"{build['target']}: {_progress(build)}" for build in builds[:_TOLD]), *more])


def _progress(build: View) -> str:
    if build["outcome"] is not None:
        return str(build["outcome"])
    if build["pauses"]:
        before = build["attempts"][-2]["why"]
        return f"attempt {build['attempt']} waits until {build['not_before']}, because: {before}"
    if build["started_at"] is None:
        return "waits for a worker"
    for phase in reversed(build["phases"]):
        if phase["outcome"] is None:
            step = phase["steps"][-1]["name"] if phase["steps"] else "getting a clean guest"
            return f"in phase {phase['name']}: {step}"
        for replay in phase["replays"]:
            if replay["outcome"] is None:
                return f"phase {phase['name']} failed, its tests are replayed: run {replay['replay']}"
    return "between two phases"


def _chosen(row: Row, names: str) -> View:
    return {name: row[name] for name in names.split()}


def _times(row: Row, names: str) -> View:
    return {name: iso(row[name]) for name in names.split()}


def _grouped(rows: Iterable[Row], key: Callable[[Row], Any]) -> Mapping[Any, list[Row]]:
    groups: dict[Any, list[Row]] = {}
    for row in rows:
        groups.setdefault(key(row), []).append(row)
    return groups
