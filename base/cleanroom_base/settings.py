"""The site's settings: one declarative table drives the file, the environment, the defaults and the help.

A key `section.name` is read from `[section] name = ...` in `cleanroom.toml` in the site directory, and from
`CLEANROOM_SECTION_NAME`, which wins. What is secret may also stand in a file, which `CLEANROOM_SECTION_NAME_FILE`
names. Every problem of a configuration is reported at once, each with its place.
"""

from __future__ import annotations

import hashlib
import os
import re
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cleanroom_base.errors import InputError, Problem

Value = str | int | float | bool | tuple[str, ...] | None


class _Invalid(ValueError):
    """A value is of the wrong form; the message says which form is right."""


@dataclass(frozen=True, slots=True)
class Setting:
    """One key: its dotted name, how to read a value, its default, and what it means."""

    key: str
    read: Callable[[object], Value]
    default: Value
    help: str
    secret: bool = False

    @property
    def variable(self) -> str:
        """The environment variable of this key."""
        return "CLEANROOM_" + self.key.upper().replace(".", "_")


def text(value: object) -> Value:
    """Any text."""
    if not isinstance(value, str):
        raise _Invalid("must be text")
    return value


def choice(*allowed: str) -> Callable[[object], Value]:
    """One of some words."""

    def read(value: object) -> Value:
        if value not in allowed:
            raise _Invalid(f"must be one of: {', '.join(allowed)}")
        return str(value)

    return read


def number(least: float, most: float, *, whole: bool = False) -> Callable[[object], Value]:
    """A number within bounds, the bounds included."""

    def read(value: object) -> Value:
        try:
            if isinstance(value, bool):
                raise _Invalid
            parsed = int(str(value)) if whole else float(str(value))
        except ValueError as error:
            raise _Invalid("must be a whole number" if whole else "must be a number") from error
        if not least <= parsed <= most:
            raise _Invalid(f"must be from {least} to {most}")
        return parsed

    return read


def clock(value: object) -> Value:
    """A time of the day such as 02:30."""
    if not isinstance(value, str) or re.fullmatch(r"([01][0-9]|2[0-3]):[0-5][0-9]", value) is None:
        raise _Invalid("must be a time of the day such as 02:30")
    return value


def place(value: object) -> Value:
    """A host and a port, such as repository:9480; the host is a name or an IPv4 address."""
    if not isinstance(value, str) or re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9.-]*:[0-9]{1,5}", value) is None:
        raise _Invalid("must be HOST:PORT")
    port(value.rpartition(":")[2])
    return value


def words(value: object) -> Value:
    """A list of words: a TOML array, or text separated by commas."""
    if isinstance(value, str):
        return tuple(part.strip() for part in value.split(",") if part.strip())
    if isinstance(value, list) and all(isinstance(part, str) for part in value):
        return tuple(value)
    raise _Invalid("must be a list of words")


# The gates that a site can demand, as the recipes' vocabulary has them; it stands above this package.
GATE = re.compile(
    r"builds|no-regression|no-slowdown|no-lost-tests|no-conflicts|reproducible|signature|approval|dependents"
    r"|union|phase:[a-z][a-z0-9-]{0,31}|step:[a-z][a-z0-9-]{0,31}/[a-z0-9][a-z0-9-]{0,63}"
)


def gates(value: object) -> Value:
    """A list of gates."""
    found = words(value)
    assert isinstance(found, tuple)
    wrong = [word for word in found if GATE.fullmatch(word) is None]
    if wrong:
        raise _Invalid(
            f"{', '.join(repr(word[:100]) for word in wrong)}: a gate is one of builds, no-regression, no-slowdown,"
            " no-lost-tests, no-conflicts, reproducible, signature, approval, dependents, union, phase:NAME,"
            " step:PHASE/NAME"
        )
    return found


def room(value: object) -> Value:
    """Free space of a file system: whole MiB, or a part of it such as 5%."""
    if isinstance(value, str) and (match := re.fullmatch(r"([0-9]{1,2}(?:\.[0-9]{1,2})?) ?%", value.strip())):
        return f"{match[1]}%"
    try:
        return number(0, 1 << 30, whole=True)(value)
    except _Invalid as error:
        raise _Invalid("must be whole MiB, or a part of the file system such as 5%") from error


port = number(1, 65535, whole=True)
seconds = number(0.01, 31_536_000)
count = number(0, 1_000_000, whole=True)
days = number(0, 36_500)
hours = number(0.01, 87_600)

SETTINGS: tuple[Setting, ...] = (
    Setting("database.url", text, None, "PostgreSQL to use (postgresql://...); default: a private cluster", True),
    Setting("database.master_url", text, None, "the master's own connection, if not by SET ROLE", True),
    Setting("database.publisher_url", text, None, "the publisher's own connection, if not by SET ROLE", True),
    Setting("database.web_url", text, None, "the web's own connection, if not by SET ROLE", True),
    Setting("database.hooks_url", text, None, "connection of what receives webhooks, if not by SET ROLE", True),
    Setting("database.notifications_url", text, None, "connection of what sends messages, if not by SET ROLE", True),
    Setting("database.access_url", text, None, "the connection for those signed in, if not by SET ROLE", True),
    Setting("database.passwords", text, None, "directory with a file a role (database-web, ...), its password in it"),
    Setting("database.wait", seconds, 60.0, "how long a process waits for a database that is away, in seconds"),
    Setting("refs.poll", seconds, 30.0, "pause between two looks at a watched repository, in seconds"),
    Setting("refs.transports", words, ("https", "ssh", "file"), "transports that a repository's URL may use"),
    Setting("refs.timeout", seconds, 300.0, "limit of one fetch from a watched repository, in seconds"),
    Setting("refs.own_recipes", choice("yes", "no"), "yes", "whether a product's own cleanroom.toml is used"),
    Setting("refs.keyring", text, None, "file with the OpenPGP keys whose signatures on tags are trusted"),
    Setting("master.poll", seconds, 10.0, "pause between two looks at the table of events, in seconds"),
    Setting("master.port", port, 9410, "port of Buildbot's web pages"),
    Setting("master.worker_port", port, 9489, "port at which workers connect to the master"),
    Setting("master.bind", text, "127.0.0.1", "address of Buildbot's web pages and worker port"),
    Setting("master.host", text, "127.0.0.1", "address at which workers find the master"),
    Setting("master.workers", words, (), "hosts whose workers the master lets in; default: this machine alone"),
    Setting("master.attempts", number(1, 20, whole=True), 3, "attempts of a build that infrastructure spoils"),
    Setting("master.retry_pause", seconds, 20.0, "pause before the second attempt in seconds; doubles after that"),
    Setting("master.lease", seconds, 120.0, "how long an attempt may be silent before it is taken away, in seconds"),
    Setting("master.trials", number(0, 1000, whole=True), 0, "trials at a time; 0: half as many as worker.parallel"),
    Setting("master.dependents", number(0, 1000, whole=True), 10, "dependents that a release is tried with; 0: none"),
    Setting(
        "schedules.nightly",
        clock,
        None,
        "time in UTC at which channels are tested every night, as 02:30; default: never",
    ),
    Setting("schedules.channels", words, ("testing", "stable"), "channels that are tested every night"),
    Setting("master.replays", number(0, 20, whole=True), 5, "replays of a phase whose tests failed, at most"),
    Setting("gates.flaky", choice("pass", "hold", "fail"), "pass", "a recipe may not be milder with a flaky build"),
    Setting("gates.all", gates, ("no-conflicts",), "gates of every release, beside those of its recipe"),
    Setting("gates.snapshots", gates, (), "further gates of what goes into the channel snapshots"),
    Setting("gates.testing", gates, (), "further gates of what goes into the channel testing"),
    Setting("gates.stable", gates, (), "further gates of what goes into the channel stable"),
    Setting("worker.parallel", number(1, 1000, whole=True), 2, "builds that this host runs side by side"),
    Setting("worker.libvirt_uri", text, None, "libvirt to use for all guests; default: probe, else run a private one"),
    Setting("worker.isolation", choice("auto", "kvm", "container", "emulated"), "auto", "how guests are isolated"),
    Setting("worker.snapshots", choice("yes", "no"), "yes", "whether virtual machines go on from a snapshot, not boot"),
    Setting("worker.processors", number(1, 1024, whole=True), 2, "processors of a guest"),
    Setting("worker.memory", number(128, 1_048_576, whole=True), 4096, "memory of a guest in MiB"),
    Setting("worker.memory_reserve", number(0, 1_048_576, whole=True), 1024, "MiB that ready guests must leave free"),
    Setting("worker.layer_age", seconds, 21600.0, "after so many seconds, what the first steps prepare is made anew"),
    Setting("worker.disk", number(512, 16_777_216, whole=True), 16384, "disk of a guest in MiB"),
    Setting("worker.processes", number(64, 4_194_304, whole=True), 4096, "processes in a guest"),
    Setting("worker.log_limit", number(1024, 1 << 40, whole=True), 64 << 20, "bytes that a step may print"),
    Setting("worker.artifact_limit", number(1024, 1 << 44, whole=True), 4 << 30, "bytes of artifacts of a phase"),
    Setting("images.verify", number(0, 8760), 24.0, "hours after which images are compared with their seals; 0: never"),
    Setting("images.refresh", number(0, 8760), 0.0, "age at which images are built anew and tried, in hours; 0: never"),
    Setting("images.keep", number(0, 1000, whole=True), 2, "former digests of each image that stay, for bisections"),
    Setting("network.subnet", text, "10.231.0.0/20", "IPv4 network of the guests on this host"),
    Setting("network.mirror_proxy", text, None, "HTTP proxy for package mirrors; default: run apt-cacher-ng"),
    Setting("network.repository", place, None, "HOST:PORT of the repository that guests see; default: this machine's"),
    Setting("publisher.origin", text, "Cleanroom", "Origin and Label of the published repository"),
    Setting("publisher.key_name", text, "Cleanroom repository", "user id of the signing key made at first start"),
    Setting(
        "publisher.key_days", days, 30.0, "days before its expiry at which status and doctor warn of a signing key"
    ),
    Setting("publisher.pkcs11_module", text, None, "library of the PKCS#11 token that has the signing keys"),
    Setting("publisher.pin_file", text, None, "file with that token's PIN; default: publisher/pin in the state"),
    Setting("publisher.valid_days", days, 0.0, "days for which apt believes a signature (Valid-Until); 0: for ever"),
    Setting("publisher.canary", choice("yes", "no"), "yes", "whether clean guests install what was published"),
    Setting("publisher.poll", seconds, 10.0, "pause between two looks at the table of publications, in seconds"),
    Setting("delivery.url", text, None, "where every generation is pushed by HTTP PUT; default: nowhere"),
    Setting("delivery.user", text, None, "user name for the remote"),
    Setting("delivery.password", text, None, "password for the remote", True),
    Setting("repository.port", port, 9480, "port of the published repository"),
    Setting("repository.bind", text, "127.0.0.1", "address of the published repository"),
    Setting("repository.url", text, None, "address that consumers use; default: http://localhost:PORT"),
    Setting("repository.keep", number(1, 10_000, whole=True), 32, "generations that stay for a rollback, at least"),
    Setting("repository.grace", number(0.01, 87_600), 72.0, "hours that what was published stays for its readers"),
    Setting("repository.collect", number(0, 8760), 24.0, "hours between two collections of garbage; 0: by hand only"),
    Setting("web.port", port, 9400, "port of the web status"),
    Setting("web.bind", text, "127.0.0.1", "address of the web status"),
    Setting("web.url", text, None, "address at which people find the web status; default: http://localhost:PORT"),
    Setting(
        "web.makers",
        number(0, 64, whole=True),
        None,
        "processes that make pages of the web status; default: as many as processors, at most 4",
    ),
    Setting("webhooks.secret", text, None, "secret with which forges sign their webhooks, for all products", True),
    Setting("webhooks.secrets", text, None, "directory with a file a product, in which the secret of its webhooks is"),
    Setting("webhooks.window", number(0.1, 8760), 24.0, "hours that a webhook may be old, and that it is remembered"),
    Setting("notifications.attempts", number(1, 100, whole=True), 12, "how often a message is tried at most"),
    Setting("notifications.pause", seconds, 30.0, "pause before the second try in seconds; doubles, up to an hour"),
    Setting("notifications.timeout", number(1, 600), 15.0, "how long a receiver of messages may be silent, in seconds"),
    Setting("mail.server", text, "localhost", "server that takes e-mail"),
    Setting("mail.port", port, 25, "port of the server that takes e-mail"),
    Setting("mail.security", choice("none", "starttls", "tls"), "none", "how e-mail is encrypted on its way there"),
    Setting("mail.user", text, None, "user at the server that takes e-mail"),
    Setting("mail.password", text, None, "password at the server that takes e-mail", True),
    Setting("mail.sender", text, None, "address that e-mail comes from; default: cleanroom@ and this machine's name"),
    Setting("web.anonymous", choice("read", "none"), "read", "what may be done without signing in to the web status"),
    Setting("web.session_idle", hours, 12.0, "hours after which an unused session of the web status ends"),
    Setting("web.session_age", hours, 168.0, "hours after which any session of the web status ends"),
    Setting(
        "openid.issuer", text, None, "OpenID Connect provider by which people sign in (https://...); default: none"
    ),
    Setting("openid.client", text, "cleanroom", "name by which the OpenID Connect provider knows Cleanroom"),
    Setting("openid.secret", text, None, "what Cleanroom says to the OpenID Connect provider", True),
    Setting("openid.name", text, "OpenID Connect", "what people call the OpenID Connect provider"),
    Setting("openid.accounts", choice("yes", "no"), "yes", "whether whoever it sends gets an account that may read"),
    Setting("retention.snapshots_versions", count, 0, "versions of a package that snapshots keeps; 0: all"),
    Setting("retention.snapshots_days", days, 0.0, "days after which snapshots may drop a version; 0: never by age"),
    Setting("retention.testing_versions", count, 0, "versions of a package that testing keeps; 0: all"),
    Setting("retention.testing_days", days, 0.0, "days after which testing may drop a version; 0: never by age"),
    Setting("retention.stable_versions", count, 0, "versions of a package that stable keeps; 0: all"),
    Setting("retention.stable_days", days, 0.0, "days after which stable may drop a version; 0: never by age"),
    Setting("retention.spare_stable", choice("yes", "no"), "yes", "whether what stable has stays in other channels"),
    Setting(
        "retention.artifacts_days", days, 90.0, "days for which artifacts that are not published stay; 0: for ever"
    ),
    Setting("retention.logs_days", days, 365.0, "days for which logs of what is not published stay; 0: for ever"),
    Setting("retention.events_days", days, 365.0, "days for which refs stay that became no release; 0: for ever"),
    Setting("retention.notifications_days", days, 90.0, "days for which messages stay that were settled; 0: for ever"),
    Setting("retention.buildbot_days", days, 28.0, "days for which Buildbot's own tables keep a build; 0: for ever"),
    Setting("retention.worker_days", days, 30.0, "days for which what a host does not use stays; 0: for ever"),
    Setting("retention.every", number(0, 8760), 24.0, "hours between two times of housekeeping; 0: by hand only"),
    Setting(
        "storage.minimum_free",
        room,
        1024,
        "free disk below which nothing new is begun, in MiB, or as a part such as 5%",
    ),
)
_BY_KEY = {setting.key: setting for setting in SETTINGS}
# Not settings, but read by every process before it can find the settings.
_PLACES = ("CLEANROOM_STATE", "CLEANROOM_SITE", "CLEANROOM_RUNTIME")
# What names a file with a secret in it instead of saying it, for containers and the like.
_IN_FILE = "_FILE"


@dataclass(frozen=True)
class Settings:
    """The settings of one site, complete: every key has a value.

    `state` is the directory for everything that Cleanroom writes; `site` is the directory of `cleanroom.toml`
    and of the site's own recipes.
    """

    state: Path
    site: Path
    values: Mapping[str, Value]
    sockets: Path | None = None

    def text(self, key: str) -> str:
        """The value of a key that always has one."""
        return str(self.values[key])

    def optional(self, key: str) -> str | None:
        """The value of a key that may have none."""
        value = self.values[key]
        return None if value is None else str(value)

    def number(self, key: str) -> float:
        """The value of a numeric key."""
        return float(str(self.values[key]))

    def whole(self, key: str) -> int:
        """The value of a whole-number key."""
        return int(str(self.values[key]))

    def least_free(self, total: int) -> int:
        """The free bytes below which nothing new is begun on a file system of `total` bytes."""
        least = self.text("storage.minimum_free")
        return int(total * float(least[:-1]) / 100) if least.endswith("%") else int(least) << 20

    def words(self, key: str) -> tuple[str, ...]:
        """The value of a list key."""
        value = self.values[key]
        return value if isinstance(value, tuple) else ()

    @property
    def instance(self) -> str:
        """Eight characters that tell the installations on one machine apart, made from the state directory."""
        return hashlib.sha256(str(self.state).encode()).hexdigest()[:8]

    @property
    def runtime(self) -> Path:
        """The directory for sockets: short, because a socket's path may have 107 bytes (unix(7)).

        Services with users of their own are told that of root, in which they meet (CLEANROOM_RUNTIME).
        """
        if self.sockets is not None:
            return self.sockets
        base = Path("/run") if os.geteuid() == 0 else Path(os.environ.get("XDG_RUNTIME_DIR", "/tmp"))  # noqa: S108
        return base / f"cleanroom-{self.instance}"

    @property
    def worker_password(self) -> Path:
        """The file with what this host's worker says to the master."""
        return self.state / "secrets" / "worker"

    @property
    def repository_url(self) -> str:
        """The address of the published repository, without a slash at its end."""
        url = self.optional("repository.url") or f"http://localhost:{self.whole('repository.port')}"
        return url.rstrip("/")

    @property
    def web_url(self) -> str:
        """The address of the web status, without a slash at its end."""
        return (self.optional("web.url") or f"http://localhost:{self.whole('web.port')}").rstrip("/")

    @property
    def buildbot_url(self) -> str:
        """The address of Buildbot's own pages, without a slash at its end."""
        return f"http://localhost:{self.whole('master.port')}"


def load(environment: Mapping[str, str] | None = None, *, site: Path | None = None) -> Settings:
    """Read the site's settings from its file and the environment.

    Raises InputError with every problem, each with its place.
    """
    variables = os.environ if environment is None else environment
    problems: list[Problem] = []
    site = site or Path(variables.get("CLEANROOM_SITE") or _default_site())
    state = Path(variables.get("CLEANROOM_STATE") or _default_state())
    values: dict[str, Value] = {setting.key: setting.default for setting in SETTINGS}
    file = site / "cleanroom.toml"
    for key, place, raw in [*_from_file(file, problems), *_from_environment(variables, problems)]:
        try:
            values[key] = _BY_KEY[key].read(raw)
        except _Invalid as error:
            problems.append(Problem(place, str(error)))
    if problems:
        raise InputError("the settings are not valid", problems=problems)
    sockets = variables.get("CLEANROOM_RUNTIME")
    return Settings(state.absolute(), site.absolute(), values, Path(sockets) if sockets else None)


def _from_file(file: Path, problems: list[Problem]) -> list[tuple[str, str, object]]:
    try:
        content: dict[str, Any] = tomllib.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return []
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError, RecursionError) as error:
        problems.append(Problem(str(file), str(error)))
        return []
    found = []
    for section, table in content.items():
        if not isinstance(table, dict):
            problems.append(Problem(f"{file}: {section}", "unknown key"))
            continue
        for name, raw in table.items():
            key = f"{section}.{name}"
            if key in _BY_KEY:
                found.append((key, f"{file}: {key}", raw))
            else:
                problems.append(Problem(f"{file}: {key}", "unknown key"))
    return found


def _from_environment(variables: Mapping[str, str], problems: list[Problem]) -> list[tuple[str, str, object]]:
    by_variable = {setting.variable: setting.key for setting in SETTINGS}
    in_files = {setting.variable + _IN_FILE: setting for setting in SETTINGS if setting.secret}
    found: list[tuple[str, str, object]] = []
    for variable, raw in sorted(variables.items()):
        if not variable.startswith("CLEANROOM_") or variable in _PLACES or raw == "":
            continue
        if variable in by_variable:
            found.append((by_variable[variable], variable, raw))
        elif variable in in_files and variables.get(in_files[variable].variable):
            problems.append(Problem(variable, f"{in_files[variable].variable} is set, too: one of them says the value"))
        elif variable in in_files:
            try:
                content = Path(raw).read_text(encoding="utf-8").strip()
            except (OSError, UnicodeDecodeError) as error:
                problems.append(Problem(variable, str(error)))
                continue
            # An empty file is none, as an empty variable is.
            found += [(in_files[variable].key, variable, content)] if content else []
        else:
            problems.append(Problem(variable, "unknown setting"))
    return found


def _default_site() -> str:
    if os.geteuid() == 0:
        return "/etc/cleanroom"
    return str(Path(os.environ.get("XDG_CONFIG_HOME", Path.home() / ".config")) / "cleanroom")


def _default_state() -> str:
    if os.geteuid() == 0:
        return "/var/lib/cleanroom"
    return str(Path(os.environ.get("XDG_STATE_HOME", Path.home() / ".local/state")) / "cleanroom")
