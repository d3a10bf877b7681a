"""What a channel keeps of a package's versions: so many, those that are young enough, and what `stable` has.

Pure: rows in, rows out. The newest version of a package always stays, so a channel never loses a product.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Set
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from cleanroom_base.settings import Settings
from cleanroom_db.generations import Aged

CHANNELS = ("snapshots", "testing", "stable")


@dataclass(frozen=True)
class Rule:
    """What a channel keeps. `versions` and `age` None: that does not matter.

    Where both are said, a version goes only when it is both too many and too old. `spare_stable`: what the channel
    `stable` has of the same bytes stays.
    """

    channel: str
    versions: int | None
    age: timedelta | None
    spare_stable: bool = True

    @property
    def words(self) -> str:
        """The rule for people."""
        kept = [f"{self.versions} versions"] if self.versions is not None else []
        kept += [f"what is younger than {self.age.days} days"] if self.age is not None else []
        return f"{self.channel} keeps {' and '.join(kept)} of a package"


def rules(settings: Settings) -> tuple[Rule, ...]:
    """The site's rules, for channels that have one."""
    found = []
    for channel in CHANNELS:
        versions = settings.whole(f"retention.{channel}_versions") or None
        days = settings.number(f"retention.{channel}_days")
        if versions is not None or days:
            spare = channel != "stable" and settings.text("retention.spare_stable") == "yes"
            found.append(Rule(channel, versions, timedelta(days=days) if days else None, spare))
    return tuple(found)


def surplus(rule: Rule, there: Iterable[Aged], stable: Set[str], *, now: datetime | None = None) -> list[Aged]:
    """The packages of a channel that its rule keeps no more; `stable` are the built checksums of what stable has.

    Which version of a package is the newest is said by when it came, as its tags were made.
    """
    moment = now or datetime.now(UTC)
    versions: dict[tuple[str, ...], list[Aged]] = defaultdict(list)
    for one in there:
        package = one.package
        versions[package.target, package.format, package.name, package.architecture].append(one)
    gone = []
    for alike in versions.values():
        alike.sort(key=lambda one: (one.since, one.package.id), reverse=True)
        for place, one in enumerate(alike):
            too_many = rule.versions is None or place >= rule.versions
            too_old = rule.age is None or moment - one.since > rule.age
            spared = rule.spare_stable and one.package.built_sha256 in stable
            if place > 0 and too_many and too_old and not spared:
                gone.append(one)
    return gone
