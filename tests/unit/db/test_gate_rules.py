"""What gates say of a release, from facts alone."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cleanroom_base.errors import InputError
from cleanroom_base.settings import GATE, load
from cleanroom_db.comparisons import Base, Recorded
from cleanroom_db.gates import BuildFacts, Facts, Part, Waiver, decide, tally, waiver_problem
from cleanroom_db.states import GateState, SignatureState
from cleanroom_db.unions import Together, Tried
from cleanroom_master.demands import demanded
from cleanroom_recipes import loader
from cleanroom_recipes.model import Flaky, Gate, Outcome, RefKind

NOW = datetime(2030, 1, 31, 12, tzinfo=UTC)
COMPARED = Recorded(1, "debian-12/deb", Base.PUBLISHED, "v1.2", "1.2", 0, 0, 0, 0, 0, 0, 0, 9, (), {})
PHASES = {"build": Part(Outcome.PASSED), "upgrade": Part(Outcome.PASSED), "remove": Part(Outcome.SKIPPED)}
STEPS = {("build", "lint"): Part(Outcome.PASSED)}
BUILD = BuildFacts("debian-12/deb", tuple(PHASES), Outcome.PASSED, "", PHASES, STEPS, COMPARED)
FACTS = Facts("testing", RefKind.TAG, SignatureState.GOOD, None, ("builds",), (BUILD,))
FAILED = replace(
    BUILD,
    outcome=Outcome.FAILED,
    why="upgrade: no service",
    phases={**PHASES, "upgrade": Part(Outcome.FAILED, "no service")},
)


def said(gate: str, *builds: BuildFacts, **facts: object) -> tuple[str, str]:
    """The state and the sentence of one gate, where it is one result."""
    [found] = decide(replace(FACTS, gates=(gate,), builds=builds or (BUILD,), **facts))
    return str(found.state), found.why


SHAKY = replace(
    BUILD,
    outcome=Outcome.FLAKY,
    why="upgrade: flaky: 2 of 4 runs failed (x)",
    phases={**PHASES, "upgrade": Part(Outcome.FLAKY, "flaky: 2 of 4 runs failed (x)")},
    steps={("upgrade", "test"): Part(Outcome.FLAKY, "flaky: 2 of 4 runs failed (x)")},
)


@pytest.mark.parametrize("gate", ["builds", "phase:upgrade", "step:upgrade/test"])
@pytest.mark.parametrize(
    ("facts", "state", "end"),
    [
        ({}, "fails", "(x)"),
        ({"flaky": Flaky.FAILS}, "fails", "(x)"),
        ({"flaky": Flaky.PASSES}, "holds", "the recipe lets that pass"),
        ({"approved_by": "anna"}, "holds", "approved by anna"),
        ({"approved_by": "anna", "flaky": Flaky.FAILS}, "fails", "(x)"),
    ],
)
def test_what_is_flaky_passes_only_where_that_is_allowed_and_says_so(
    gate: str, facts: dict[str, object], state: str, end: str
) -> None:
    found, why = said(gate, SHAKY, **facts)
    assert found == state
    assert "flaky" in why
    assert "2 of 4 runs failed" in why
    assert end in why


def waived(*gates: str) -> dict[str, Waiver]:
    return {gate: Waiver(1, gate, "anna", "known", NOW, NOW + timedelta(days=1), True) for gate in gates}


@pytest.mark.parametrize(
    ("gate", "build", "state", "why"),
    [
        ("builds", BUILD, "holds", "debian-12/deb passed"),
        ("builds", FAILED, "fails", "debian-12/deb: upgrade: no service"),
        ("phase:upgrade", BUILD, "holds", "`upgrade` from 1.2 passed on debian-12/deb"),
        ("phase:upgrade", FAILED, "fails", "`upgrade` from 1.2 failed on debian-12/deb (no service)"),
        ("phase:remove", BUILD, "holds", "`remove` skipped on debian-12/deb"),
        ("phase:purge", BUILD, "fails", "`purge` is not part of the build on debian-12/deb"),
        ("step:build/lint", BUILD, "holds", "`build/lint` passed on debian-12/deb"),
        (
            "step:build/lint",
            replace(BUILD, steps={("build", "lint"): Part(Outcome.FAILED, "E: bad")}),
            "fails",
            "`build/lint` failed on debian-12/deb (E: bad)",
        ),
        ("step:build/other", BUILD, "fails", "`build/other` did not run on debian-12/deb"),
        ("step:remove/purge", BUILD, "holds", "`remove` had nothing to do on debian-12/deb"),
        ("no-regression", BUILD, "holds", "compared with 1.2 on debian-12/deb"),
        (
            "no-regression",
            replace(BUILD, comparison=replace(COMPARED, regressed=1, names={"regressed": ["regress tests a b"]})),
            "fails",
            "1 test regressed (a b) since 1.2 on debian-12/deb",
        ),
        (
            "no-regression",
            replace(BUILD, comparison=replace(COMPARED, phases=("upgrade",))),
            "fails",
            "phase `upgrade` regressed since 1.2 on debian-12/deb",
        ),
        (
            "no-regression",
            replace(BUILD, comparison=replace(COMPARED, against_ref=None, against_version=None)),
            "holds",
            "nothing is published in testing for debian-12/deb yet",
        ),
        ("no-regression", replace(BUILD, comparison=None), "fails", "debian-12/deb was not compared"),
        ("no-slowdown", replace(BUILD, comparison=replace(COMPARED, slower=2)), "fails", "2 tests became slower"),
        ("no-lost-tests", replace(BUILD, comparison=replace(COMPARED, gone=5)), "fails", "5 tests run no more"),
        ("approval", BUILD, "fails", "waits for approval"),
        ("signature", BUILD, "holds", "the tag's signature is good"),
        ("of-later-times", BUILD, "fails", "this version knows no gate 'of-later-times'"),
    ],
)
def test_a_gate_and_its_sentence(gate: str, build: BuildFacts, state: str, why: str) -> None:
    found = said(gate, build)
    assert found[0] == state
    assert found[1].startswith(why)


def test_a_flaky_build_holds_once_somebody_approved_it() -> None:
    flaky = replace(BUILD, outcome=Outcome.FLAKY, why="regress: a is flaky")
    assert said("builds", flaky) == ("fails", "debian-12/deb: regress: a is flaky")
    assert said("builds", flaky, approved_by="anna")[0] == "holds"


def test_what_is_waived_says_by_whom_until_when_and_why() -> None:
    found = said("no-lost-tests", replace(BUILD, comparison=None), waivers=waived("no-lost-tests"))
    assert found[0] == "waived"
    assert found[1].endswith("; waived by anna until 2030-02-01T12:00:00Z: known")
    # What holds needs no waiver.
    assert said("no-lost-tests", waivers=waived("no-lost-tests"))[0] == "holds"


def test_a_waived_phase_lets_the_build_hold_but_only_if_nothing_else_failed() -> None:
    facts = replace(FACTS, builds=(FAILED,), waivers=waived("phase:upgrade"))
    assert [(one.gate, str(one.state)) for one in decide(facts)] == [("builds", "holds"), ("phase:upgrade", "waived")]
    worse = replace(FAILED, phases={**FAILED.phases, "remove": Part(Outcome.FAILED)})
    assert str(decide(replace(facts, builds=(worse,)))[0].state) == "fails"
    unfinished = replace(FAILED, phases={"upgrade": FAILED.phases["upgrade"]})
    assert str(decide(replace(facts, builds=(unfinished,)))[0].state) == "fails"


@pytest.mark.parametrize(
    ("gate", "problem"),
    [
        ("builds", "cannot be waived as a whole"),
        ("approval", "approve the release"),
        ("signature", "cannot be waived"),
        ("phase:build", "cannot be waived"),
        ("phase:nonsense", "the release has no gate 'phase:nonsense'"),
        ("no-slowdown", "the release has no gate 'no-slowdown'"),
        ("phase:remove", "holds: there is nothing to waive"),
    ],
)
def test_what_cannot_be_waived_says_why(gate: str, problem: str) -> None:
    found = waiver_problem(replace(FACTS, builds=(FAILED,)), gate)
    assert found is not None
    assert problem in found
    assert waiver_problem(replace(FACTS, builds=(FAILED,)), "phase:upgrade") is None


def test_gates_are_counted_in_words() -> None:
    facts = replace(FACTS, gates=("builds", "no-regression", "phase:upgrade", "approval"), builds=(FAILED, BUILD))
    assert tally(decide(facts)) == "1 of 4 gates hold"
    assert tally(decide(replace(facts, waivers=waived("phase:upgrade")))) == "2 of 4 gates hold, 1 waived"
    assert tally(decide(FACTS)) == ""


def test_a_waiver_never_makes_a_gate_fail() -> None:
    gates = ("builds", "no-regression", "phase:upgrade", "phase:remove")
    facts = replace(FACTS, gates=gates, builds=(FAILED,))
    before = {one.gate for one in decide(facts) if one.state is GateState.FAILS}
    for gate in gates[1:]:
        after = {one.gate for one in decide(replace(facts, waivers=waived(gate))) if one.state is GateState.FAILS}
        assert after <= before - {gate}


# -- what is demanded ----------------------------------------------------------------------------------------------

RECIPE = b'name="x"\nurl="u"\nbuilder="deb"\n'


def test_site_and_recipe_add_up_by_channel() -> None:
    settings = load({"CLEANROOM_GATES_ALL": "no-regression", "CLEANROOM_GATES_STABLE": "approval,phase:upgrade"})
    recipe = loader.load(
        RECIPE + b'gates=["no-lost-tests"]\n[channels.stable]\ngates=["signature","approval"]\n', source="recipe"
    )
    assert demanded(settings, recipe, "testing") == ("builds", "no-regression", "no-lost-tests")
    assert demanded(settings, recipe, "stable") == (
        *("builds", "no-regression", "approval", "phase:upgrade", "no-lost-tests", "signature"),
    )


def test_all_mistakes_of_gates_are_told_with_their_place() -> None:
    with pytest.raises(InputError) as raised:
        loader.load(
            RECIPE + b'gates=["builds","phase:upgrad","nonsense","phase:remove"]\n[phases.remove]\nenabled=false\n'
            b'[channels.testing]\ngates=["approval","approval"]\ngate=1\n[channels."../x"]\n',
            source="recipe",
        )
    assert {problem.place for problem in raised.value.problems} == {
        *("gates[1]", "gates[2]", "gates[3]", "channels.testing.gates", "channels.testing.gate", "channels.../x"),
    }


ALPHA = Together("debian-12/deb", Outcome.PASSED, "", None, ("alpha",), ("beta", "gamma"))
RPM = replace(ALPHA, target="debian-12/rpm", others=("beta",))


@pytest.mark.parametrize(
    ("targets", "state", "why"),
    [
        ((), "holds", "there is nothing in testing to install it together with; left out: zeta"),
        (
            (ALPHA, RPM),
            "holds",
            "installed together with what testing has: 3 packages on debian-12/deb, 2 packages on debian-12/rpm;"
            " left out: zeta",
        ),
        (
            (ALPHA, replace(RPM, outcome=None)),
            "waits",
            "waits to be installed together with what testing has on debian-12/rpm",
        ),
        (
            (replace(ALPHA, outcome=Outcome.INFRASTRUCTURE, why="no guest"), RPM),
            "fails",
            "could not be installed together with others, for no fault of its own (debian-12/deb: no guest)",
        ),
        (
            (replace(ALPHA, outcome=Outcome.CANCELLED), replace(RPM, outcome=Outcome.FAILED)),
            "fails",
            "alpha cannot be installed together with beta on debian-12/rpm; left out: zeta",
        ),
    ],
)
def test_a_union_is_told_by_target(targets: tuple[Together, ...], state: str, why: str) -> None:
    union = Tried("testing", 7 if targets else None, "", ("zeta",), targets=targets)
    assert said("union", union=union) == (state, why)


def test_of_a_union_that_fails_the_first_names_and_the_end_of_the_reason_are_told() -> None:
    others = tuple(f"p{number}" for number in range(200))
    broken = replace(ALPHA, outcome=Outcome.FAILED, why=f"much{'.' * 5000} the end", others=others)
    state, why = said("union", union=Tried("testing", 7, "", (), "and more", targets=(broken,)))
    assert state == "fails"
    assert why.startswith("alpha cannot be installed together with p0, p1,")
    assert "p9 and 190 more on debian-12/deb (...." in why
    assert why.endswith(". the end); and more")
    assert len(why) < 500


def test_nothing_is_installed_together_any_more_once_it_is_published() -> None:
    assert said("union")[0] == "waits"
    state, why = said("union", promoted=True)
    assert (state, why.partition(":")[0]) == (
        "fails",
        "it was not installed together with others before it was published",
    )


def test_mistakes_of_the_site_s_gates_are_told() -> None:
    with pytest.raises(InputError, match="CLEANROOM_GATES_TESTING: 'sometimes', 'phase:': a gate is one of builds"):
        load({"CLEANROOM_GATES_TESTING": "builds, sometimes, phase:"})


def test_settings_and_recipes_know_the_same_gates() -> None:
    assert all(GATE.fullmatch(gate) for gate in Gate)
    assert set(GATE.pattern.split("|")[: len(Gate)]) == set(Gate)


@given(st.text(max_size=40) | st.from_regex(GATE, fullmatch=True))
def test_settings_and_recipes_agree_on_every_word(word: str) -> None:
    assert (GATE.fullmatch(word) is not None) == _recipe_takes(word)


def _recipe_takes(word: str) -> bool:
    kept = loader.to_json(loader.load(RECIPE, source="recipe"))
    try:
        loader.from_json({**kept, "gates": [word]})
    except InputError:
        return False
    return True
