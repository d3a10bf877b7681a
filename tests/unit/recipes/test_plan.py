from __future__ import annotations

import subprocess
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from cleanroom_base.errors import InputError
from cleanroom_recipes import canary, loader, request
from cleanroom_recipes.conditions import Conditions
from cleanroom_recipes.model import RESULT_FILES, Blame, Builder, Input, Network, RefKind, Target, User
from cleanroom_recipes.plan import OTHER_DATE, PhasePlan, plan, with_other_date, with_packages
from cleanroom_recipes.request import PhaseRequest

TALLY = """
name = "tally"
url = "https://example.org/tally.git"
builders = ["deb", "rpm"]
packages = ["gcc", "make"]
spec = "tally.spec"
tests = ["tally --version", "tally </dev/null"]
[environment]
DEB_BUILD_PROFILES = "nodoc"
[timeouts]
step = 100
[phases.upgrade]
enabled = false
[phases.regress]
network = "none"
timeout = 50
steps = [{ name = "more", run = "true", timeout = 7, user = "root", required = false }]
"""


def phases(text: str, target: str) -> dict[str, PhasePlan]:
    recipe = loader.load(text.encode(), source="recipe")
    return {phase.name: phase for phase in plan(recipe, Target.parse(target))}


def test_a_target_chooses_the_builder() -> None:
    assert list(phases(TALLY, "debian-12/deb")) == ["build", "install", "regress", "remove"]
    built = phases(TALLY, "debian-12/rpm")["build"]
    assert built.makes_artifacts
    assert built.inputs == (Input.SOURCE,)
    assert [step.name for step in built.steps] == ["update", "unpack", "dependencies", "source", "build", "lint"]


def test_commands_of_the_recipe_become_steps() -> None:
    regress = phases(TALLY, "debian-12/deb")["regress"]
    tests = [step for step in regress.steps if step.name.startswith("test-")]
    assert [step.program.splitlines()[-1] for step in tests] == ["tally --version", "tally </dev/null"]
    assert all(step.user is User.BUILDER and step.timeout == 100 for step in tests)
    last = regress.steps[-1]
    assert (last.name, last.timeout, last.user, last.required) == ("more", 7, User.ROOT, False)
    assert (regress.network, regress.timeout) == (Network.NONE, 50)


def test_result_files_are_looked_for_where_tests_run() -> None:
    table, _, rest = TALLY.partition("[environment]")
    built = phases(f'{table}results = ["out/*.xml"]\n[environment]{rest}', "debian-12/deb")
    patterns = {step.name: step.results for phase in built.values() for step in phase.steps if step.results}
    assert patterns == dict.fromkeys(["build", "autopkgtest", "test-1", "test-2", "more"], ("out/*.xml",))
    assert phases(TALLY, "debian-12/deb")["build"].steps[4].results == RESULT_FILES
    assert not any(step.results for step in phases(f"results = []\n{TALLY}", "debian-12/deb")["build"].steps)


def test_a_phase_with_commands_is_run_in_any_case() -> None:
    shortest = 'name = "hello"\nurl = "u"\nbuilder = "deb"'
    condition = phases(shortest, "debian-12/deb")["regress"].condition
    assert condition is not None
    assert condition.source == ("debian/tests/control",)
    assert condition.suites == ("autopkgtest-pkg-",)
    assert phases(TALLY, "debian-12/deb")["regress"].condition is None


def test_an_upgrade_begins_with_what_each_channel_publishes() -> None:
    shortest = 'name = "hello"\nurl = "u"\nbuilder = "deb"\n'
    found = phases(shortest, "debian-12/deb")
    cases = {name: phase.channel for name, phase in found.items() if name.startswith("upgrade")}
    assert cases == {
        "upgrade": None,
        "upgrade-snapshots": "snapshots",
        "upgrade-testing": "testing",
        "upgrade-stable": "stable",
    }
    assert found["upgrade-stable"].steps == found["upgrade"].steps
    condition = found["upgrade-stable"].condition
    assert condition is not None
    assert condition.why_not == "nothing is published to upgrade from in stable"
    # What a recipe says of upgrades holds for each of them that it does not speak of by name.
    wishes = "[phases.upgrade]\ntimeout = 50\n[phases.upgrade-stable]\nenabled = false\n"
    found = phases(shortest + wishes, "debian-12/deb")
    assert "upgrade-stable" not in found
    assert [found[name].timeout for name in ("upgrade", "upgrade-testing", "install")] == [50, 50, 7200]


def test_where_nothing_is_published_no_command_of_the_recipe_has_anything_to_begin_with() -> None:
    steps = '[[phases.upgrade.steps]]\nname = "more"\nrun = "true"\n'
    found = phases('name = "hello"\nurl = "u"\nbuilder = "deb"\n' + steps, "debian-12/deb")
    assert [step.name for step in found["upgrade-testing"].steps][-1] == "more"
    assert found["upgrade"].condition is not None


@pytest.mark.parametrize("builder", ["deb", "rpm"])
def test_a_downgrade_is_only_tried_where_the_recipe_says_so(builder: str) -> None:
    shortest = f'name = "hello"\nurl = "u"\nbuilder = "{builder}"\n'
    assert "downgrade" not in phases(shortest, f"debian-12/{builder}")
    assert "downgrade" not in phases(shortest + "[phases.downgrade]\ntimeout = 5\n", f"debian-12/{builder}")
    found = phases(shortest + "[phases.downgrade]\nenabled = true\n", f"debian-12/{builder}")["downgrade"]
    assert found.inputs == (Input.ARTIFACTS, Input.PREVIOUS)


def test_what_is_prepared_depends_on_no_product() -> None:
    """A layer is shared by all products: nothing that one of them says may be in it."""
    own, other = (
        loader.load(text.encode(), source="x", name=name, url="file:///x")
        for name, text in (("tally", TALLY), ("plain", 'name = "plain"\nbuilders = ["deb", "rpm"]\n'))
    )
    for builder, prepared in ((Builder.DEB, ["update"]), (Builder.RPM, ["update", "dnf"])):
        mine = plan(own, Target("debian-12", builder))[1]
        theirs = plan(other, Target("debian-12", builder))[1]
        assert [step.name for step in mine.steps if step.prepares] == prepared
        assert mine.preparation == theirs.preparation
        assert len(mine.preparation) == len(prepared)
        assert not any(step.environment for step in mine.steps if step.prepares)
        # Where the packages are built, nothing more than the present state of the system may be there.
        assert len(plan(own, Target("debian-12", builder))[0].preparation) == 1


def test_a_step_that_only_informs_can_be_left_out_and_no_other() -> None:
    text = 'name = "x"\nbuilder = "deb"\n[phases.build]\nwithout = ["lint"]\n'
    recipe = loader.load(text.encode(), source="x", name="x", url="file:///x")
    assert [step.name for step in plan(recipe, Target("debian-12", Builder.DEB))[0].steps][-1] == "build"
    with pytest.raises(InputError) as raised:
        loader.load(
            (text.replace('"lint"', '"build", "lint"') + '[phases.install]\nwithout = ["update"]\n').encode(),
            source="x",
            name="x",
            url="file:///x",
        )
    assert [str(problem) for problem in raised.value.problems] == [
        "phases.build.without: 'build': only lint of this phase can be left out",
        "phases.install.without: 'update': no step of this phase can be left out",
    ]


def test_a_step_that_costs_much_runs_where_the_recipe_wants_it() -> None:
    text = 'name = "x"\nurl = "u"\nbuilder = "deb"\n'
    assert [step.name for step in phases(text, "debian-12/deb")["remove"].steps][-1] == "purge"
    wish = text + '[phases.remove]\nalso = ["piuparts"]\n'
    last = phases(wish, "debian-12/deb")["remove"].steps[-1]
    assert (last.name, last.required) == ("piuparts", False)
    with pytest.raises(InputError) as raised:
        phases(wish + '[phases.install]\nalso = ["piuparts"]\n', "debian-12/deb")
    assert [str(problem) for problem in raised.value.problems] == [
        "phases.install.also: 'piuparts': no step can be run in this phase besides"
    ]


def test_the_product_cannot_spoil_what_counts_as_infrastructure() -> None:
    for phase in phases(TALLY, "debian-12/rpm").values():
        for step in phase.steps:
            if step.blame is Blame.INFRASTRUCTURE:
                assert not step.environment
            else:
                assert step.environment["DEB_BUILD_PROFILES"] == "nodoc"
                assert step.environment["CLEANROOM_PACKAGES"] == "gcc make"


@pytest.mark.parametrize("builder", Builder)
def test_step_programs_are_valid_shell(builder: Builder) -> None:
    text = f'name="x"\nurl="u"\nbuilder="{builder}"\n'
    if builder is Builder.SCRIPT:
        text += 'commands=["make"]\nartifacts=["x"]\ntests=["true"]'
    for phase in phases(text, f"debian-12/{builder}").values():
        for step in phase.steps:
            checked = subprocess.run(["sh", "-n"], input=step.program.encode(), capture_output=True, check=False)
            assert checked.returncode == 0, (phase.name, step.name, checked.stderr)


@pytest.mark.parametrize("builder", [Builder.DEB, Builder.RPM])
def test_a_consumer_gets_a_machine_of_its_client_and_does_what_the_page_says(builder: Builder) -> None:
    target = Target("debian-12", builder)
    named = [(f"p{number}", "1.0", "all") for number in range(canary.MOST + 1)]
    phases = canary.phases(target, named, [("p0", "0.9", "all")])
    machine = ["update"] if builder is Builder.DEB else ["update", "dnf"]
    for name, phase in phases.items():
        assert [step.name for step in phase.steps] == [*machine, "repository", name]
        # What the surroundings do is nobody's fault, and ready guests have done it.
        assert len(phase.preparation) == len(machine)
        assert {step.blame for step in phase.steps[len(machine) :]} == {Blame.APT}
        assert phase.steps[-1].environment["CLEANROOM_WANTED"].splitlines()[-1] == f"p{canary.MOST - 1} 1.0 all"
        for step in phase.steps:
            checked = subprocess.run(["sh", "-n"], input=step.program.encode(), capture_output=True, check=False)
            assert checked.returncode == 0, (name, step.name, checked.stderr)


def make_request() -> PhaseRequest:
    return PhaseRequest(
        product="tally",
        ref="v1.0",
        kind=RefKind.TAG,
        commit="0123456789" * 4,
        commit_time=datetime(2026, 1, 31, 12, 0, tzinfo=UTC),
        expected_version="1.0",
        target=Target.parse("debian-12/deb"),
        attempt=1,
        phase=phases(TALLY, "debian-12/deb")["build"],
        source=Path("/srv/source.tar"),
        artifacts=None,
        previous=None,
        output=Path("/srv/output"),
    )


def test_a_request_survives_the_file(tmp_path: Path) -> None:
    wanted = make_request()
    file = tmp_path / "request.json"
    file.write_bytes(request.encode(wanted))
    assert request.read(file) == wanted


def test_a_commit_that_is_no_release_has_a_suffix() -> None:
    assert make_request().snapshot_suffix == ""
    assert replace(make_request(), kind=RefKind.COMMIT).snapshot_suffix == "+git20260131120000.0123456"


def test_a_digest_that_names_another_file_is_refused() -> None:
    for digest in ("../x", "A" * 64, "a" * 63):
        wanted = replace(make_request(), conditions=Conditions(image_digest=digest))
        with pytest.raises(InputError, match=r"conditions\.image_digest"):
            request.decode(request.encode(wanted))


def test_a_bad_request_tells_everything(tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        request.decode(b'{"protocol": 3, "commit": "HEAD", "output": "relative", "extra": 1}')
    places = {problem.place for problem in caught.value.problems}
    assert {"commit", "output", "extra", "phase", "product"} <= places
    for content in (b"", b"[]", b"{", b"\xff"):
        with pytest.raises(InputError):
            request.decode(content)
    with pytest.raises(InputError):
        request.read(tmp_path / "missing.json")


def test_exact_packages_come_after_the_update_and_before_what_depends_on_them() -> None:
    recipe = loader.load(b'builder = "deb"\n', source="the recipe", name="x", url="file:///x")
    [build, *_] = plan(recipe, Target.parse("debian-12/deb"))
    assert with_packages(build, {}) is build
    steps = with_packages(build, {"make": "4.3-4.1", "gcc": "4:12.2.0-3"}).steps
    assert [step.name for step in steps[:3]] == ["update", "exact-packages", "unpack"]
    assert steps[1].environment == {"CLEANROOM_EXACT": "gcc=4:12.2.0-3\nmake=4.3-4.1"}
    assert [steps[0], *steps[2:]] == list(build.steps)


def test_programs_are_told_another_date_where_the_product_s_code_runs() -> None:
    found = phases(TALLY, "debian-12/deb")
    other = with_other_date(found["build"])
    names = [step.name for step in other.steps]
    assert names == ["update", OTHER_DATE, *(step.name for step in found["build"].steps[1:])]
    assert "apt_get install libfaketime" in other.steps[1].program
    told = {step.name: step.environment for step in other.steps if "FAKETIME" in step.environment}
    assert list(told) == ["build"]
    assert told["build"]["DEB_BUILD_PROFILES"] == "nodoc"
    # A guest that was prepared for the phase is prepared for this one.
    assert other.preparation == found["build"].preparation
    assert with_other_date(found["install"]) is found["install"]
