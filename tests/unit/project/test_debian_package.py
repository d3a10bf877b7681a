"""The Debian package is of one mind with the rest of the project; that it works is shown in `acceptance/itself`."""

from __future__ import annotations

import hashlib
import re
import subprocess
import tomllib
from pathlib import Path

from surroundings import variables

from cleanroom_master.doctor import PROGRAMS

ROOT = Path(__file__).resolve().parents[3]
DEBIAN = ROOT / "debian"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
CHANGELOG = DEBIAN / "changelog"


def pins(lock: Path) -> dict[str, str]:
    """The versions of a lock file; each has checksums."""
    text = lock.read_text()
    found = dict(re.findall(r"^([a-z0-9][a-z0-9._-]*)==(\S+) \\\n    --hash=sha256:", text, re.M))
    assert len(found) == len(re.findall(r"^\S+==", text, re.M))
    return found


def system_packages() -> dict[str, str]:
    lines = (ROOT / "system-packages.txt").read_text().splitlines()
    return {name: word.strip("# ") for name, _, word in (line.partition(" ") for line in lines if line[0] != "#")}


def test_the_version_is_that_of_the_project() -> None:
    assert CHANGELOG.read_text().startswith(f"cleanroom ({PROJECT['project']['version']}) ")


def test_what_is_packed_is_what_is_tested() -> None:
    tested, packed, tools = (
        pins(ROOT / "requirements.lock"),
        pins(DEBIAN / "runtime.lock"),
        pins(DEBIAN / "tools.lock"),
    )
    assert packed.items() <= tested.items()
    named = {re.split(r"[<>=]", line)[0].lower() for line in PROJECT["project"]["dependencies"]}
    assert named <= set(packed)
    [backend] = PROJECT["build-system"]["requires"]
    assert backend == f"hatchling=={tools['hatchling']}"
    assert tools["shtab"] == tested["shtab"]


def test_the_package_depends_on_what_runs_and_not_on_what_builds() -> None:
    packages = system_packages()
    assert set(packages.values()) == {"", "development", "essential", "recommended", "suggested"}
    needed = {name for name, word in packages.items() if word in ("", "essential")}
    # dpkg is always there, and dpkg-dev is what we name.
    assert set(PROGRAMS.values()) - {"dpkg"} <= needed
    control = (DEBIAN / "control").read_text()
    compiled = set(re.split(r"[,\s]+", control.partition("Build-Depends:")[2].partition("\nStandards")[0]))
    assert {"gcc", "libpq-dev", "libvirt-dev", "pkg-config", "python3-dev", "python3-venv"} <= compiled
    assert compiled - {"", "debhelper-compat", "(=", "13)"} <= set(packages)
    for word in ("Depends", "Recommends", "Suggests"):
        assert f"${{cleanroom:{word}}}" in control


def test_dpkg_gets_the_lists_from_the_one_file(tmp_path: Path) -> None:
    said = (DEBIAN / "rules").read_text()
    [expression] = re.findall(r"^listed = \$\(shell (sed .*) system-packages.txt\)$", said, re.M)
    for mark in ("", "# recommended", "# suggested"):
        script = expression.replace("$(1)", mark).replace("$$", "$")
        done = subprocess.run(
            ["sh", "-c", f"{script} system-packages.txt"], cwd=ROOT, capture_output=True, text=True, check=True
        )
        wanted = [name for name, word in system_packages().items() if word == mark.strip("# ")]
        assert done.stdout.split() == [f"{name}," for name in wanted]


def test_scripts_can_be_parsed() -> None:
    for name in ("cleanroom.postinst", "cleanroom.prerm", "cleanroom.postrm", "relocate", "tests/command"):
        subprocess.run(["sh", "-n", DEBIAN / name], check=True, timeout=30)
    for name in ("tests/services", "tests/publication", "tests/modules"):
        compile((DEBIAN / name).read_text(), name, "exec")
    for name in ("rules", "relocate", "tests/command", "tests/services", "tests/publication"):
        assert (DEBIAN / name).stat().st_mode & 0o111, name


def test_an_environment_says_that_it_is_where_it_will_be(tmp_path: Path) -> None:
    home = tmp_path / "debian/usr/lib/cleanroom"
    tac = home / "lib/python3.11/site-packages/cleanroom_workers/basedir/buildbot.tac"
    tac.parent.mkdir(parents=True)
    tac.touch()
    (home / "bin").mkdir()
    (home / "bin/python").symlink_to("/usr/bin/python3")
    (home / "bin/short").write_text(f"#!{home}/bin/python3.11\nprint()\n")
    (home / "bin/long").write_text(f"#!/bin/sh\n'''exec' \"{home}/bin/python\" \"$0\" \"$@\"\n' '''\nprint()\n")
    (home / "bin/activate").write_text(f"VIRTUAL_ENV={home}\n")
    (home / "pyvenv.cfg").write_text(f"home = /usr/bin\ncommand = /usr/bin/python3 -m venv {home}\n")
    relocate = [DEBIAN / "relocate", home, "/usr/lib/cleanroom"]
    subprocess.run(relocate, check=True, timeout=60)
    assert (home / "bin/short").read_text().splitlines()[0] == "#!/usr/lib/cleanroom/bin/python"
    assert (home / "bin/long").read_text().splitlines()[1] == '\'\'\'exec\' "/usr/lib/cleanroom/bin/python" "$0" "$@"'
    assert (home / "pyvenv.cfg").read_text() == "home = /usr/bin\n"
    assert not (home / "bin/activate").exists()
    assert (home / "worker.tac").resolve() == tac
    # What it does not know is not packed.
    (home / "lib/other").write_text(str(home))
    refused = subprocess.run(relocate, capture_output=True, text=True, timeout=60, check=False)
    assert refused.returncode == 1
    assert "lib/other" in refused.stderr


# -- scripts/tag-release -----------------------------------------------------------------------------------------------

# pip, as far as it is asked: it "fetches" a file a lock.
PIP = """\
#!/bin/sh
while [ $# -gt 0 ]; do
	case $1 in
	--requirement) name=$(basename "$2" .lock) ;;
	--dest) place=$2 ;;
	esac
	shift
done
mkdir -p "$place"
echo "$name" >"$place/$name-1-py3-none-any.whl"
echo "$name" >>fetched
"""


def git(place: Path, *words: str) -> str:
    done = subprocess.run(["git", *words], cwd=place, capture_output=True, text=True, timeout=60, check=True)
    return done.stdout.strip()


def project(place: Path, version: str) -> Path:
    (place / "scripts").mkdir(parents=True)
    (place / "debian").mkdir()
    (place / "scripts/tag-release").write_text((ROOT / "scripts/tag-release").read_text())
    (place / "debian/changelog").write_text("cleanroom (1.5) bookworm; urgency=medium\n")
    (place / "pyproject.toml").write_text(f'[project]\nversion = "{version}"\n')
    for name in ("runtime", "tools"):
        sha256 = hashlib.sha256(f"{name}\n".encode()).hexdigest()
        (place / f"debian/{name}.lock").write_text(f"{name}==1 \\\n    --hash=sha256:{sha256}\n")
    (place / ".gitignore").write_text("debian/wheels/\npip\nfetched\n")
    (place / "pip").write_text(PIP)
    (place / "pip").chmod(0o755)
    git(place, "init", "--quiet", "--initial-branch=main")
    for key, value in (("name", "Nobody"), ("email", "nobody@example.org")):
        git(place, "config", f"user.{key}", value)
    git(place, "add", "--all")
    git(place, "commit", "--quiet", "--message=The first state")
    return place


def tag(place: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["sh", "scripts/tag-release"],
        cwd=place,
        env={**variables(), "PYTHON": str(place / "pip")},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_a_tag_has_what_python_needs_and_the_branch_has_not(tmp_path: Path) -> None:
    place = project(tmp_path, "1.5")
    done = tag(place)
    assert done.returncode == 0, done.stderr
    assert git(place, "cat-file", "-t", "v1.5") == "tag"
    added = git(place, "diff", "--name-only", "main", "v1.5").splitlines()
    assert added == ["debian/wheels/runtime-1-py3-none-any.whl", "debian/wheels/tools-1-py3-none-any.whl"]
    assert git(place, "rev-parse", "v1.5^") == git(place, "rev-parse", "main")
    assert git(place, "status", "--porcelain") == ""
    # What is there is not fetched again, unless it is not what the lock files name.
    for content, fetched in (("runtime", 2), ("other", 4)):
        git(place, "tag", "--delete", "v1.5")
        (place / "debian/wheels/runtime-1-py3-none-any.whl").write_text(f"{content}\n")
        assert tag(place).returncode == 0
        assert len((place / "fetched").read_text().splitlines()) == fetched


def test_a_tag_is_refused_where_versions_differ_or_something_is_not_committed(tmp_path: Path) -> None:
    other = project(tmp_path / "other", "1.6")
    refused = tag(other)
    assert (refused.returncode, git(other, "tag")) == (2, "")
    assert "version 1.5" in refused.stderr
    changed = project(tmp_path / "changed", "1.5")
    (changed / "new").touch()
    refused = tag(changed)
    assert (refused.returncode, git(changed, "tag")) == (2, "")
    assert "not committed" in refused.stderr
