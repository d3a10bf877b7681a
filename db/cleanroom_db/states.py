"""The words that only the record uses: each an enum of the same name in the schema; a test compares them."""

from __future__ import annotations

from enum import StrEnum


class RefChange(StrEnum):
    """What happened to a ref. Only `created` can become a release."""

    CREATED = "created"
    MOVED = "moved"
    DELETED = "deleted"


class RefEventState(StrEnum):
    """What became of a ref event: `recorded` goes to one of the others, once."""

    RECORDED = "recorded"
    CLAIMED = "claimed"
    IGNORED = "ignored"
    REFUSED = "refused"


class TagKind(StrEnum):
    """How a tag was made; `none` for a commit, `unknown` until the ref watch has looked."""

    ANNOTATED = "annotated"
    LIGHTWEIGHT = "lightweight"
    NONE = "none"
    UNKNOWN = "unknown"


class SignatureState(StrEnum):
    """What a tag's signature is worth against the site's keyring."""

    NONE = "none"
    GOOD = "good"
    BAD = "bad"
    UNKNOWN_KEY = "unknown_key"
    EXPIRED = "expired"
    UNCHECKED = "unchecked"


class SignaturePolicy(StrEnum):
    """Whether a product's tags must carry a good signature."""

    OPTIONAL = "optional"
    REQUIRED = "required"


class ReleaseState(StrEnum):
    """Where a release is.

    waiting -> building -> passed -> published -> withdrawn; building -> failed, held or cancelled;
    failed, held and cancelled -> building by a retry; held -> passed by an approval; withdrawn -> published where
    only a rollback had taken it back, by a rollback to a generation that has it; published -> held where a consumer
    could not install it.
    """

    WAITING = "waiting"
    BUILDING = "building"
    PASSED = "passed"
    PUBLISHED = "published"
    FAILED = "failed"
    HELD = "held"
    CANCELLED = "cancelled"
    WITHDRAWN = "withdrawn"


class PublicationState(StrEnum):
    """Where a publication is: `pending` goes to one of the others.

    `removed`: it left the channel by a rollback or by the channel's retention, and comes back by a rollback to a
    generation that has it. `withdrawn`: a person took it out, and it never comes back. `refused`: it was never there,
    or a consumer could not install it; it waits again once a person approves or promotes it.
    """

    PENDING = "pending"
    PUBLISHED = "published"
    REFUSED = "refused"
    CANCELLED = "cancelled"
    REMOVED = "removed"
    WITHDRAWN = "withdrawn"


class RequestKind(StrEnum):
    """What is asked of the publisher."""

    ROLLBACK = "rollback"
    WITHDRAW = "withdraw"
    VERIFY = "verify"
    REPAIR = "repair"
    COLLECT = "collect"
    ROTATE_KEY = "rotate-key"
    RETIRE_KEY = "retire-key"
    EXTEND_KEY = "extend-key"


class RequestState(StrEnum):
    """Where a request is: `pending` goes to one of the others, once."""

    PENDING = "pending"
    DONE = "done"
    REFUSED = "refused"


class Removal(StrEnum):
    """Why a release is in a channel no more."""

    ROLLBACK = "rollback"
    WITHDRAWAL = "withdrawal"
    RETENTION = "retention"
    CANARY = "canary"


class TrialPurpose(StrEnum):
    """What a trial is to show.

    `reproduction`: that a build gives the same bytes again; `dependent`: that a product still passes with a candidate
    of another one; `nightly`: that what is published still passes; `bisection`: which change broke something;
    `union`: that candidates can be installed together; `canary`: that consumers can install what was published.
    """

    REPRODUCTION = "reproduction"
    DEPENDENT = "dependent"
    NIGHTLY = "nightly"
    BISECTION = "bisection"
    UNION = "union"
    CANARY = "canary"


class DependencyOrigin(StrEnum):
    """How it is known that a product depends on another.

    `recipe`: its recipe says so; `build`: a package of the other was installed while it was built; `package`: its
    packages name one of the other's.
    """

    RECIPE = "recipe"
    BUILD = "build"
    PACKAGE = "package"


class HostState(StrEnum):
    """Whether a host takes work."""

    READY = "ready"
    DRAINING = "draining"
    DRAINED = "drained"


class GateState(StrEnum):
    """Whether a gate lets a release pass; `waits`: that is not known yet, because something still runs."""

    HOLDS = "holds"
    FAILS = "fails"
    WAIVED = "waived"
    WAITS = "waits"


class BisectionAxis(StrEnum):
    """Along what a bisection searches: commits, images, or states of the packages that builds had."""

    COMMIT = "commit"
    IMAGE = "image"
    DEPENDENCIES = "dependencies"


class BisectionState(StrEnum):
    """Where a bisection is.

    `running` goes to one of the others: `found` the first bad one; `undecided` between some, because others cannot be
    judged; `refused`, because an end is not what it was said to be; `spoiled` by the infrastructure; `cancelled`.
    """

    RUNNING = "running"
    FOUND = "found"
    UNDECIDED = "undecided"
    REFUSED = "refused"
    SPOILED = "spoiled"
    CANCELLED = "cancelled"


class Verdict(StrEnum):
    """What a probe says of its candidate; `skipped`: it cannot be judged."""

    GOOD = "good"
    BAD = "bad"
    SKIPPED = "skipped"


class Forge(StrEnum):
    """Where repositories are hosted, by the form of its webhooks and of its interface."""

    GITHUB = "github"
    GITLAB = "gitlab"
    GITEA = "gitea"


class NotificationEvent(StrEnum):
    """What a message is about.

    `regressed` and `fixed`: what a product brings into a channel regressed, or no longer does; `status`: a commit's
    status for its forge.
    """

    REGRESSED = "regressed"
    FIXED = "fixed"
    PUBLISHED = "published"
    ROLLED_BACK = "rolled_back"
    WITHDRAWN = "withdrawn"
    STATUS = "status"


class NotificationState(StrEnum):
    """Where a message is: `pending` goes to one of the others; `superseded`: a later one says more."""

    PENDING = "pending"
    DELIVERED = "delivered"
    FAILED = "failed"
    SUPERSEDED = "superseded"


class AccountRole(StrEnum):
    """What an account may do, from little to all; each may do what those before it may."""

    READER = "reader"
    DEVELOPER = "developer"
    MANAGER = "manager"
    ADMINISTRATOR = "administrator"

    def includes(self, other: AccountRole) -> bool:
        """Whether this role may do all that the other may."""
        order = list(AccountRole)
        return order.index(self) >= order.index(other)
