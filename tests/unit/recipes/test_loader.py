from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cleanroom_base.errors import InputError
from cleanroom_recipes import loader, places
from cleanroom_recipes.model import Builder, Gate, Network, Outcome, Recipe, Target

SHORTEST = b'name = "hello"\nurl = "https://example.org/hello.git"\nbuilder = "deb"\n'


def load(text: str | bytes, **known: str) -> Recipe:
    return loader.load(text if isinstance(text, bytes) else text.encode(), source="recipe", **known)


def problems(text: str | bytes, **known: str) -> dict[str, str]:
    with pytest.raises(InputError) as caught:
        load(text, **known)
    return {problem.place: problem.message for problem in caught.value.problems}


def test_the_shortest_recipe_is_complete() -> None:
    recipe = load(SHORTEST)
    assert recipe.builders == (Builder.DEB,)
    assert recipe.targets == (Target("debian-12", Builder.DEB),)
    assert recipe.tags == ("*",)
    assert recipe.network is Network.MIRROR
    assert recipe.gates == (Gate.BUILDS,)


def test_a_product_can_be_built_as_several_formats() -> None:
    recipe = load('name = "tally"\nurl = "u"\nbuilders = ["deb", "rpm"]\npackages = ["gcc"]')
    assert [str(target) for target in recipe.targets] == ["debian-12/deb", "debian-12/rpm"]


def test_everything_wrong_is_reported_at_once_with_its_place() -> None:
    found = problems(
        """
        name = "Hello World"
        builder = "debb"
        tagz = ["v*"]
        versions = ["v{versoin}"]
        tests = [1]
        isolation = "vmware"
        [limits]
        memory = 1
        [timeouts]
        step = true
        [environment]
        CLEANROOM_REF = "x"
        "A B" = "y"
        [[phases.build.steps]]
        name = "Compile"
        run = ""
        timeout = 0
        user = "nobody"
        comand = "x"
        """
    )
    assert set(found) == {
        "name",
        "url",
        "builders[0]",
        "tagz",
        "versions[0]",
        "tests[0]",
        "isolation",
        "limits.memory",
        "timeouts.step",
        "environment.CLEANROOM_REF",
        "environment.A B",
        "phases.build.steps[0].name",
        "phases.build.steps[0].run",
        "phases.build.steps[0].timeout",
        "phases.build.steps[0].user",
        "phases.build.steps[0].comand",
    }
    assert found["tagz"] == "unknown key; did you mean tags?"
    assert found["isolation"] == "must be one of: auto, kvm, container, emulated"
    assert found["phases.build.steps[0].timeout"] == "must be from 1 to 604800"


@pytest.mark.parametrize(
    ("more", "place"),
    [
        ('spec = "hello.spec"', "spec"),
        ('packages = ["gcc"]', "packages"),
        ('commands = ["make"]', "commands"),
        ('targets = ["debian-12/rpm"]', "targets[0]"),
        ('targets = ["debian-12"]', "targets[0]"),
        ('targets = ["../etc/deb"]', "targets[0]"),
        ('targets = ["debian-12/deb", "debian-12/deb"]', "targets"),
        ("targets = []", "targets"),
        ('builders = ["deb"]', "builder"),
        ("[phases.instal]\nenabled = false", "phases.instal"),
        ("[phases.build]\nenabled = false", "phases.build.enabled"),
        ('[[phases.build.steps]]\nname="a"\nrun="x"\n[[phases.build.steps]]\nname="a"\nrun="y"', "phases.build.steps"),
        ("gates = ['none']", "gates[0]"),
        ("gates = ['phase:downgrade']", "gates[0]"),
        ("gates = ['phase:upgrade-stable']\n[phases.upgrade]\nenabled = false", "gates[0]"),
    ],
)
def test_contradictions_have_their_place(more: str, place: str) -> None:
    assert place in problems(SHORTEST + more.encode())


def test_a_gate_may_name_a_phase_that_the_recipe_switches_on() -> None:
    on = "\n[phases.downgrade]\nenabled = true\n"
    gates = 'gates = ["phase:downgrade", "phase:upgrade-stable"]'
    assert load(SHORTEST.decode() + gates + on).gates[1:] == ("phase:downgrade", "phase:upgrade-stable")


@pytest.mark.parametrize("path", ["/etc/shadow", "../x", "a/../../x", "a b", "$(id)", "-rf*", "a;b"])
def test_patterns_stay_inside_the_source_tree(path: str) -> None:
    text = f'name="x"\nurl="u"\nbuilder="script"\ncommands=["make"]\nartifacts=[{json.dumps(path)}]'
    if path == "-rf*":
        assert load(text).artifacts == (path,)
    else:
        assert "artifacts[0]" in problems(text)


def test_a_script_recipe_needs_commands_and_artifacts() -> None:
    assert set(problems('name="x"\nurl="u"\nbuilder="script"')) == {"commands", "artifacts"}


def test_the_site_knows_name_and_url_better() -> None:
    recipe = load('builder = "deb"', name="tally", url="https://example.org/tally.git")
    assert (recipe.name, recipe.url) == ("tally", "https://example.org/tally.git")
    assert load(SHORTEST, url="ssh://elsewhere").url == "ssh://elsewhere"
    assert "name" in problems(SHORTEST, name="other")


@pytest.mark.parametrize("url", ["--upload-pack=touch x", "a b", "a\\nb", ""])
def test_an_address_cannot_be_an_option(url: str) -> None:
    assert "url" in problems(f'name="x"\nbuilder="deb"\nurl="{url}"')


@pytest.mark.parametrize("content", [b"\xff", b"name = ", b"a = 1\na = 2", b"[" * 5000, b"x" * 300_000])
def test_what_is_not_toml_is_an_input_error(content: bytes) -> None:
    with pytest.raises(InputError):
        load(content)


def test_a_recipe_survives_being_kept_as_json() -> None:
    recipe = load(
        SHORTEST + b'tests = ["hello"]\n[environment]\nA = "b"\n'
        b'[phases.regress]\nnetwork = "none"\nsteps = [{name = "a", run = "true"}]\n'
    )
    kept = json.loads(json.dumps(loader.to_json(recipe)))
    assert loader.from_json(kept) == recipe
    assert loader.digest(loader.from_json(kept)) == loader.digest(recipe)
    assert kept["targets"] == ["debian-12/deb"]


def test_the_digest_depends_on_the_meaning_alone() -> None:
    other = b'# a comment\nbuilders = ["deb"]\nurl = "https://example.org/hello.git"\nname = "hello"\ntags = ["*"]\n'
    assert loader.digest(load(other)) == loader.digest(load(SHORTEST))
    assert loader.digest(load(SHORTEST + b'tags = ["v*"]')) != loader.digest(load(SHORTEST))


def test_the_shipped_recipes_are_valid() -> None:
    files = [*places.products().glob("*.toml"), *places.products().glob("*/cleanroom.toml")]
    assert len(files) >= 2
    for file in files:
        assert loader.read(file, url="https://example.org/x.git").targets


def test_a_missing_file_is_an_input_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot read the recipe"):
        loader.read(tmp_path / "none.toml")


def test_a_target_is_text() -> None:
    assert str(Target.parse("debian-13/rpm")) == "debian-13/rpm"
    assert Outcome("passed") is Outcome.PASSED


_KEYS = st.sampled_from([*Recipe.__dataclass_fields__, "builder", "x"])
_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text("v1*/{}. ", max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("ab"), inner, max_size=3),
    max_leaves=5,
)


@given(st.dictionaries(_KEYS, _VALUES, max_size=6))
def test_any_json_is_a_recipe_or_an_input_error(value: dict[str, object]) -> None:
    try:
        recipe = loader.from_json(value)
    except InputError as error:
        assert error.problems
    else:
        assert loader.from_json(loader.to_json(recipe)) == recipe


@given(st.text(max_size=200))
def test_any_text_is_a_recipe_or_an_input_error(text: str) -> None:
    with pytest.raises(InputError):
        load(text)


@given(st.dictionaries(_KEYS, st.sampled_from(["1", '"x"', "[1]", '["x"]', "{a = 1}", "nan", "[[]]"]), max_size=6))
def test_any_toml_is_a_recipe_or_an_input_error(table: dict[str, str]) -> None:
    text = "\n".join(f"{key} = {value}" for key, value in table.items())
    with pytest.raises(InputError) as caught:
        load(text)
    assert caught.value.problems


def test_a_product_that_depends_on_itself_is_refused() -> None:
    text = b'builder = "deb"\ndepends = ["library", "tiny", "library"]\n'
    with pytest.raises(InputError) as raised:
        loader.load(text, source="the recipe", name="tiny", url="file:///tiny")
    assert {str(problem) for problem in raised.value.problems} == {
        "depends: has library twice",
        "depends[1]: a product cannot depend on itself",
    }
