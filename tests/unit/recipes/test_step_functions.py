"""The shell functions that steps share, with the programs that they ask replaced by ones that say what a test wants."""

from __future__ import annotations

import os
import subprocess
import tarfile
from pathlib import Path

import pytest

from cleanroom_recipes import places
from cleanroom_workers import declarations

DPKG = "dpkg: error processing package tiny (--configure):"


def run(tmp_path: Path, builder: str, program: str, **fakes: str) -> subprocess.CompletedProcess[str]:
    """Run shell commands after a builder's preludes; `fakes` are programs by name, as shell text."""
    for name, text in fakes.items():
        fake = tmp_path / name.replace("_", "-")
        fake.write_text(f"#!/bin/sh\n{text}\n")
        fake.chmod(0o755)
    preludes = [(places.builders() / part / "prelude").read_text() for part in ("common", builder)]
    return subprocess.run(
        ["sh"],
        input="\n".join([*preludes, program]),
        env={"PATH": f"{tmp_path}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )


@pytest.mark.parametrize(
    ("line", "why"),
    [
        # dpkg 1.21 and dpkg 1.22
        (
            " installed tiny package post-installation script subprocess returned error exit status 3",
            "postinst of tiny failed: it returned error exit status 3",
        ),
        (
            " new tiny package pre-installation script subprocess failed with exit status 1",
            "preinst of tiny failed: it failed with exit status 1",
        ),
        (
            " old tiny:amd64 package post-removal script subprocess was killed by signal (Killed)",
            "postrm of tiny:amd64 failed: it was killed by signal (Killed)",
        ),
    ],
)
def test_the_maintainer_script_that_failed_is_named(tmp_path: Path, line: str, why: str) -> None:
    done = run(tmp_path, "deb", "with_scripts install tiny", apt_get=f"echo '{DPKG}'; echo '{line}' >&2; exit 100")
    assert (done.returncode, done.stderr) == (1, f"cleanroom: {why}\n")
    assert line in done.stdout


def test_what_is_apts_own_failure_stays_apts(tmp_path: Path) -> None:
    done = run(tmp_path, "deb", "with_scripts install tiny", apt_get="echo 'Err:1 http://m x'; exit 100")
    assert (done.returncode, done.stderr) == (100, "")
    # Scripts that complain, and do not fail, are none of it.
    quiet = "echo 'installed tiny package post-installation script subprocess returned error exit status 3'"
    assert run(tmp_path, "deb", "with_scripts install tiny", apt_get=quiet).returncode == 0


def test_a_scriptlet_that_failed_is_named_although_dnf_does_not_fail(tmp_path: Path) -> None:
    said = "warning: %post(tiny-1.0-1.noarch) scriptlet failed, exit status 3"
    done = run(tmp_path, "rpm", "with_scripts install tiny", dnf=f"echo '{said}' >&2")
    assert (done.returncode, done.stderr) == (1, "cleanroom: %post of tiny-1.0-1.noarch failed: exit status 3\n")
    assert run(tmp_path, "rpm", "with_scripts install tiny", dnf="exit 7").returncode == 7


def test_what_is_taken_away_is_told_but_not_an_empty_directory_for_units(tmp_path: Path) -> None:
    before, after = tmp_path / "before", tmp_path / "after"
    before.write_text("/etc/a\n/etc/systemd/system/getty.target.wants\n/etc/systemd/user/b.target.requires\n/usr\n")
    after.write_text("/etc/a\n/usr\n")
    assert run(tmp_path, "deb", f"no_leftovers {before} {after}").returncode == 0
    for gone in ("/etc/systemd/system/getty.target.wants/c.service", "/etc/systemd/system/d.service", "/etc/0"):
        before.write_text(f"{gone}\n{after.read_text()}")
        done = run(tmp_path, "deb", f"LC_ALL=C sort -o {before} {before}; no_leftovers {before} {after}")
        assert done.stderr == f"cleanroom: removed, the packages take away what was there before: {gone}\n"
    after.write_text("/etc/a\n/usr\n/var/lib/left\n")
    done = run(tmp_path, "deb", f"no_leftovers {before} {after}")
    assert done.stderr == "cleanroom: removed, the packages leave 1 paths behind, first /var/lib/left\n"


def test_a_packages_own_tests_are_given_no_variable_of_ours(tmp_path: Path) -> None:
    (tmp_path / "debian/tests").mkdir(parents=True)
    (tmp_path / "debian/control").write_text("Source: tiny\n")
    (tmp_path / "debian/tests/control").touch()
    ours = f'export CLEANROOM_TREE={tmp_path} CLEANROOM_RESULTS={tmp_path}/results CLEANROOM_REF="v1\nx" OTHER=1\n'
    step = (places.builders() / "deb/steps/autopkgtest").read_text()
    done = run(tmp_path, "deb", ours + step, apt_get="exit 0", autopkgtest='env; echo "told $*"')
    assert done.returncode == 0, done
    assert "CLEANROOM" not in done.stdout
    assert "OTHER=1" in done.stdout
    assert f"told --no-built-binaries --output-dir {tmp_path}/results/autopkgtest {tmp_path}/ -- null" in done.stdout


def test_units_are_those_that_can_be_started(tmp_path: Path) -> None:
    files = "/lib/systemd/system/{a.service,a@.service,a.service.d/b.conf} /usr/lib/systemd/system/{c.timer,c.txt}"
    program = f"bash -c 'printf \"%s\\n\" {files} /etc/d.service' | units"
    assert run(tmp_path, "deb", program).stdout.split() == ["a.service", "c.timer"]


@pytest.mark.parametrize(
    ("said", "why"),
    [
        ({"ActiveState": "active", "NRestarts": "0"}, ""),
        ({"ActiveState": "failed", "Result": "exit-code", "ExecMainStatus": "203"}, "failed (exit-code, status 203)"),
        ({"ActiveState": "inactive", "Type": "simple", "ConditionResult": "yes"}, "does not keep running"),
        ({"ActiveState": "inactive", "Type": "simple", "ConditionResult": "no"}, ""),
        ({"ActiveState": "inactive", "Type": "oneshot", "ConditionResult": "yes"}, ""),
        ({"ActiveState": "activating", "NRestarts": "2"}, "ended and was started again 2 times"),
        # Timers and sockets have no restarts.
        ({"ActiveState": "active"}, ""),
    ],
)
def test_what_is_wrong_with_a_service(tmp_path: Path, said: dict[str, str], why: str) -> None:
    answers = "".join(f"--property={name}) echo '{value}' ;;\n" for name, value in said.items())
    done = run(tmp_path, "deb", "complaint tiny.service", systemctl=f'case "$2" in\n{answers}*) ;;\nesac')
    assert (done.returncode, done.stdout.strip()) == (0, why)


@pytest.mark.parametrize(
    ("line", "why"),
    [
        (
            "??5?????? c /etc/tiny.conf",
            "the scripts of tiny change its configuration file /etc/tiny.conf, which is the administrator's to do",
        ),
        ("??5??????   /usr/bin/tiny", "/usr/bin/tiny of tiny is not what was packed"),
        (
            "missing     /usr/share/a c /b",
            "/usr/share/a c /b of tiny is missing although the package is installed",
        ),
    ],
)
def test_the_file_that_is_not_as_it_was_packed_is_named(tmp_path: Path, line: str, why: str) -> None:
    query = 'shift; echo "tiny: $1"'
    done = run(tmp_path, "deb", "verify tiny", dpkg=f"echo '{line}'", dpkg_query=query)
    assert (done.returncode, done.stderr.splitlines()[-1]) == (1, f"cleanroom: {why}")
    # rpm ends with a status, and says the package by itself.
    done = run(
        tmp_path, "rpm", "verify tiny", rpm=f"case $1 in --verify) echo '{line}'; exit 1 ;; *) echo tiny ;; esac"
    )
    assert (done.returncode, done.stderr.splitlines()[-1]) == (1, f"cleanroom: {why}")
    assert run(tmp_path, "rpm", "verify tiny", rpm="true").returncode == 0


@pytest.mark.parametrize(
    ("before", "after"),
    [("# a\nb = 1\n", "# a\nb = 1\n\n# Changed by an administrator.\n"), ('{"a": 1}\n', '{"a": 1}\n\n')],
)
def test_a_configuration_file_is_changed_so_that_no_program_minds(tmp_path: Path, before: str, after: str) -> None:
    file = tmp_path / "x.conf"
    file.write_text(before)
    assert run(tmp_path, "deb", f"change {file}").returncode == 0
    assert file.read_text() == after


CONTROL = "Source: tiny\n{field}\nPriority: optional\n\nPackage: tiny\nTestsuite: autopkgtest-pkg-ruby\n"


@pytest.mark.parametrize(
    ("field", "suites"),
    [
        ("Testsuite: autopkgtest-pkg-python", ["autopkgtest-pkg-python"]),
        ("testsuite:autopkgtest, autopkgtest-pkg-perl", ["autopkgtest-pkg-perl"]),
        (
            "Testsuite:\n# a comment\n autopkgtest-pkg-perl,\n\tautopkgtest-pkg-go",
            ["autopkgtest-pkg-perl", "autopkgtest-pkg-go"],
        ),
        ("Testsuite: autopkgtest", []),
        ("Testsuite-Triggers: autopkgtest-pkg-python", []),
        ("Section: x", []),
    ],
)
def test_tests_that_are_written_by_autodep8_are_known(tmp_path: Path, field: str, suites: list[str]) -> None:
    control = tmp_path / "control"
    control.write_text(CONTROL.format(field=field))
    done = run(tmp_path, "deb", f"generated_suites {control}")
    assert (done.stdout.split(), done.returncode) == (suites, 0)
    # The host, which decides whether the phase is run at all, reads the same.
    source = tmp_path / "source.tar"
    with tarfile.open(source, "w") as tar:
        tar.add(control, arcname="./debian/control")
    assert declarations.suites(source, ["autopkgtest-pkg-"]) == suites


@pytest.mark.parametrize(
    ("field", "own", "installed"),
    [
        ("Testsuite: autopkgtest-pkg-python", False, "autopkgtest autodep8"),
        ("Testsuite: autopkgtest-pkg-python", True, "autopkgtest autodep8"),
        ("Section: x", True, "autopkgtest"),
        ("Section: x", False, None),
    ],
)
def test_autodep8_is_installed_where_it_writes_the_tests(
    tmp_path: Path, field: str, own: bool, installed: str | None
) -> None:
    tree = tmp_path / "tree/debian"
    (tree / "tests").mkdir(parents=True)
    (tree / "control").write_text(CONTROL.format(field=field))
    if own:
        (tree / "tests/control").write_text("Tests: one\n")
    step = (places.builders() / "deb/steps/autopkgtest").read_text()
    fakes = {"apt_get": 'for last in "$@"; do case $last in auto*) echo "$last"; esac; done', "autopkgtest": "exit 0"}
    where = f"CLEANROOM_TREE={tree.parent} CLEANROOM_RESULTS={tmp_path}\n"
    done = run(tmp_path, "deb", where + step, **fakes)
    assert (done.returncode, done.stdout.split()) == ((77, []) if installed is None else (0, installed.split()))


# -- a consumer ------------------------------------------------------------------------------------------------------


def canary(tmp_path: Path, builder: str, name: str, wanted: str, earlier: str = "", **fakes: str):
    """Run a step of a consumer's."""
    program = (places.builders() / builder / "consumer" / name).read_text()
    return run(tmp_path, builder, f"CLEANROOM_WANTED='{wanted}' CLEANROOM_EARLIER='{earlier}'\n{program}", **fakes)


def test_a_consumer_installs_what_is_for_this_system_in_exactly_that_version(tmp_path: Path) -> None:
    wanted = "tiny 1:2.0~rc1 all\ntiny-dbgsym 2.0 amd64\ntiny-data 2.0 i386\ntiny-lib 2.0 amd64"
    apt = 'echo "$@"'
    done = canary(tmp_path, "deb", "install", wanted, apt_get=apt, dpkg="[ $1 = --audit ] || echo amd64")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "-q -y install tiny=1:2.0~rc1 tiny-lib=2.0\n"


def test_packages_that_exclude_each_other_are_installed_one_after_the_other(tmp_path: Path) -> None:
    apt = 'case $* in *--simulate*) exit 100 ;; esac; echo "$@"'
    done = canary(tmp_path, "deb", "install", "a 1 all\nb 1 all", apt_get=apt, dpkg="[ $1 = --audit ] || echo amd64")
    assert done.stdout.splitlines() == ["-q -y install a=1", "-q -y install b=1"]


def test_a_consumer_upgrades_only_from_what_is_older(tmp_path: Path) -> None:
    fakes = {
        "apt_get": 'echo "$@"',
        "dpkg_query": "echo installed 2.0",
        "dpkg": 'case $1 in --audit) ;; --print*) echo amd64 ;; *) exec /usr/bin/dpkg "$@" ;; esac',
    }
    wanted = "a 2.0 all\nb 2.0 all\nc 2.0 all"
    done = canary(tmp_path, "deb", "upgrade", wanted, "a 1.0 all\nb 3.0 all", **fakes)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-2:] == ["-q -y install a=1.0", "-q -y install a=2.0"]
    done = canary(tmp_path, "deb", "upgrade", wanted, "b 3.0 all", **fakes)
    assert (done.returncode, done.stderr) == (77, "cleanroom: nothing older is published to upgrade from\n")


def test_a_consumer_who_fails_is_quoted(tmp_path: Path) -> None:
    said = (
        "Setting up x\n*** x.conf (Y/I/N/O/D/Z) [default=N] ? dpkg: error processing package x (--configure):\n"
        " end of file on stdin at conffile prompt\nE: Sub-process /usr/bin/dpkg returned an error code (1)"
    )
    terminal = f"echo '{said}' | sed 's/$/\\r/'; exit 100"
    done = run(tmp_path, "deb", "as_consumer apt-get install x", apt_get=terminal)
    words = "dpkg: error processing package x (--configure): end of file on stdin at conffile prompt"
    assert (done.returncode, done.stderr.strip()) == (100, f"cleanroom: apt-get install x: {words}")


@pytest.mark.parametrize(
    ("address", "what", "status"),
    [
        ("http://r/apt", "Hash Sum mismatch", 1),
        ("http://mirror/debian", "Hash Sum mismatch", 100),
        ("http://r/apt", "Could not connect", 100),
    ],
)
def test_only_other_bytes_than_were_published_are_a_fault_of_what_is_fetched(
    tmp_path: Path, address: str, what: str, status: int
) -> None:
    (tmp_path / "source").write_text("URIs: http://r/apt\n")
    preludes = {"sed": f'exec /bin/sed "$1" "$2" {tmp_path}/source'}
    done = run(
        tmp_path,
        "deb",
        "as_consumer apt-get update",
        apt_get=f"echo 'E: Failed to fetch {address}/x  {what}'; exit 100",
        **preludes,
    )
    assert done.returncode == status, done


def test_dnf_is_asked_for_whole_names_and_the_epoch_decides_what_is_older(tmp_path: Path) -> None:
    fakes = {
        "dnf": 'echo "$@"',
        "rpm": 'case $1 in --eval) case $2 in *_arch*) echo x86_64 ;; *) exec /usr/bin/rpm "$@" ;; esac ;; esac',
    }
    wanted = "tiny 2.0-1 noarch\ntiny-debuginfo 2.0-1 x86_64\ntiny-lib 1:1.0-1 x86_64"
    done = canary(tmp_path, "rpm", "install", wanted, **fakes)
    assert done.stdout == "--assumeyes install tiny-2.0-1.noarch tiny-lib-1:1.0-1.x86_64\n"
    done = canary(tmp_path, "rpm", "upgrade", wanted, "tiny 3.0-1 noarch\ntiny-lib 2.0-1 x86_64", **fakes)
    assert done.returncode == 0, done
    assert done.stdout.splitlines() == [
        "--assumeyes install tiny-lib-2.0-1.x86_64",
        "--assumeyes upgrade tiny-lib-1:1.0-1.x86_64",
    ]
