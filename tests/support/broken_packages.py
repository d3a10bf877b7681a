"""Packages with what goes wrong in the life of a package, each of them small and made by the real tools."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

SETTINGS = "/etc/tiny.conf"
# Where FORKS says what it left behind.
PROCESS = "/run/tiny.pid"
_UNIT = "/usr/lib/systemd/system/tiny.service"
_ENABLED = "/etc/systemd/system/multi-user.target.wants/tiny.service"


@dataclass(frozen=True)
class Tiny:
    """What a tiny package has besides its one file; scripts by what they are called in its format."""

    files: Mapping[str, str] = field(default_factory=dict)
    scripts: Mapping[str, str] = field(default_factory=dict)


def script(body: str) -> str:
    """A maintainer script."""
    return f"#!/bin/sh\nset -e\n{body}\n"


def service(command: str, more: str = "", *, started: bool = True, stopped: bool = True, rpm: bool = False) -> Tiny:
    """A package with a service that runs `command`; it is enabled, and as packages do it, started and stopped."""
    begin = f"systemctl daemon-reload; systemctl enable tiny{'; systemctl start tiny || true' if started else ''}"
    end = f"systemctl stop tiny || true; rm -f {_ENABLED}" if stopped else f"rm -f {_ENABLED}"
    files = {_UNIT: f"[Service]\nExecStart={command}\n{more}\n[Install]\nWantedBy=multi-user.target\n"}
    if rpm:
        return Tiny(files, {"post": begin, "preun": end})
    return Tiny(files, {"postinst": script(begin), "prerm": script(end)})


def question(default: str = "") -> Tiny:
    """A package that asks for a name by debconf."""
    templates = "Template: tiny/name\nType: string\n" + (f"Default: {default}\n" if default else "")
    ask = script(". /usr/share/debconf/confmodule\ndb_input high tiny/name || true\ndb_go")
    return Tiny(
        scripts={
            "templates": templates + "Description: What shall it be called?\n Anything will do.\n",
            "config": ask,
            "postinst": script(". /usr/share/debconf/confmodule\ndb_get tiny/name"),
            "postrm": script('if [ "$1" = purge ]; then . /usr/share/debconf/confmodule; db_purge; fi'),
        }
    )


GOOD = Tiny({SETTINGS: "# Settings of tiny\nlevel = 1\n"})
CONFIGURED = Tiny({SETTINGS: "# Settings of tiny\nlevel = 2\n"})
FAILS = Tiny(scripts={"postinst": script("exit 3")})
READS = Tiny(scripts={"postinst": script('echo "Which one?"; read -r answer; echo "$answer"')})
CHANGES_ITS_CONFIGURATION = Tiny(GOOD.files, {"postinst": script(f"echo level = 9 >>{SETTINGS}")})
# Only what an administrator changed is spoilt.
LOSES = f"! grep -q administrator {SETTINGS} || sed -i /administrator/d {SETTINGS}"
LOSES_THE_ADMINISTRATORS = Tiny(GOOD.files, {"preinst": script(LOSES)})
LEAVES_A_FILE = Tiny(scripts={"postinst": script("mkdir -p /var/lib/tiny; touch /var/lib/tiny/state")})
FORKS = Tiny(
    scripts={
        "postinst": script(
            "cp /bin/sleep /usr/share/tiny/greeting; chmod +x /usr/share/tiny/greeting\n"
            f"/usr/share/tiny/greeting 1000 >/dev/null 2>&1 & echo $! >{PROCESS}"
        )
    }
)
