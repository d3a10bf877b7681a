"""Other circumstances for a build whose bytes are to be the same again: what may be different and should not matter.

Varied are the path of the tree, the user's name, number and home, the time zone (so that the date there is another
one), the locale, the umask, a variable in the environment, and the order of files in a directory. Host name, machine
id and the time of day are other ones in every guest. The date in UTC is another one, by more than a year, where the
guest has a clock of its own, as virtual machines do. A container has its host's; there the recipe's `vary_date` has a
library preloaded that lies about it, which not every build that is fine survives.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

from cleanroom_recipes.model import Isolation, User

_USER = "again"
_NUMBER = 4711
_HOME = f"/home/{_USER}"
_PLACE = "/cleanroom/build/again"
# The trees of sources that are smaller than this part of the guest's memory lie in memory.
_SHARE = 100
# Run by root before the first step. Steps say `builder`; who asks for the name of that number hears another one. A
# file system in memory lists the files of a directory by when they came, the others by a hash of their names.
PROGRAM = f"""set -eu
if ! id builder > /dev/null 2>&1; then
  groupadd --gid {_NUMBER} {_USER}
  useradd --uid {_NUMBER} --gid {_NUMBER} --home-dir {_HOME} --create-home --shell /bin/bash {_USER}
  useradd --non-unique --uid {_NUMBER} --gid {_NUMBER} --home-dir {_HOME} --no-create-home --shell /bin/bash builder
fi
mkdir -p {_PLACE} {_HOME}
memory=$(awk '$1 == "MemTotal:" {{ print $2 }}' /proc/meminfo)
source=$(du --apparent-size --block-size=1024 /cleanroom/source.tar | cut -f 1)
if [ $((source * {_SHARE})) -le "$memory" ]; then
  mount -t tmpfs -o "mode=0755,size=$((memory / 4 * 3))k" tmpfs {_PLACE} || echo 'the order of files is not varied'
fi
"""
# In seconds: another day, month, year and day of the week.
_AHEAD = 34_410_180
# What a step of the user's is run by: its program is the first word.
_AS_USER = 'umask 0002; exec sh "$1"'


def environment(user: User, now: datetime) -> Mapping[str, str]:
    """What a step finds otherwise in its environment; only what the product's code runs in is varied but the path."""
    varied = {"CLEANROOM_TREE": f"{_PLACE}/another/tree"}
    if user is User.ROOT:
        return varied
    # East of UTC it is tomorrow already, or west of it yesterday still. Source of the form: tzset(3).
    zone = "<+14>-14" if now.hour >= 12 else "<-12>12"
    return {
        **varied,
        "TZ": zone,
        "LC_ALL": "C",
        "LANG": "C",
        "LANGUAGE": "et",
        "HOME": _HOME,
        "USER": _USER,
        "LOGNAME": _USER,
        "SHELL": "/bin/bash",
        "VARIED_BUILD": "yes",
    }


def has_clock(isolation: str) -> bool:
    """Whether guests of that kind have a clock of their own."""
    return isolation != Isolation.CONTAINER


def clock(now: datetime, *, ahead: bool) -> list[str]:
    """The command by which root sets a guest's clock: to the time that it is, or `ahead` of it."""
    return ["date", "--utc", f"--set=@{int(now.timestamp()) + (_AHEAD if ahead else 0)}"]


def command(user: User, program: str) -> list[str]:
    """The command that runs a step's program."""
    return ["sh", program] if user is User.ROOT else ["sh", "-c", _AS_USER, "sh", program]
