"""The settings: file, environment, defaults, and every problem at once."""

from __future__ import annotations

from pathlib import Path

import pytest

from cleanroom_base.errors import InputError
from cleanroom_base.settings import SETTINGS, Settings, load


def read(site: Path, text: str = "", **variables: str) -> Settings:
    (site / "cleanroom.toml").write_text(text)
    return load({"CLEANROOM_SITE": str(site), "CLEANROOM_STATE": str(site / "state"), **variables})


def test_without_a_file_everything_has_its_default(tmp_path: Path) -> None:
    settings = load({"CLEANROOM_SITE": str(tmp_path), "CLEANROOM_STATE": str(tmp_path / "state")})
    assert dict(settings.values) == {setting.key: setting.default for setting in SETTINGS}
    assert settings.repository_url == "http://localhost:9480"


def test_every_default_is_a_value_that_may_be_given(tmp_path: Path) -> None:
    for setting in SETTINGS:
        if setting.default is not None:
            given = list(setting.default) if isinstance(setting.default, tuple) else setting.default
            assert setting.read(given) == setting.default, setting.key
        assert setting.help


def test_the_environment_wins_over_the_file(tmp_path: Path) -> None:
    text = "[refs]\npoll = 5\ntransports = ['https']\n"
    assert read(tmp_path, text).number("refs.poll") == 5
    settings = read(tmp_path, text, CLEANROOM_REFS_POLL="7.5", CLEANROOM_REFS_TRANSPORTS="ssh, file")
    assert settings.number("refs.poll") == 7.5
    assert settings.words("refs.transports") == ("ssh", "file")


def test_an_empty_variable_is_none(tmp_path: Path) -> None:
    assert read(tmp_path, CLEANROOM_DATABASE_URL="").optional("database.url") is None


def test_all_problems_are_told_at_once_with_their_places(tmp_path: Path) -> None:
    text = (
        "loose = 1\n[refs]\npoll = 'often'\nnonsense = 1\n[master]\nport = 70000\nattempts = true\n"
        "[worker]\nisolation = 'prison'\nparallel = 1.5\n"
    )
    with pytest.raises(InputError) as raised:
        read(tmp_path, text, CLEANROOM_TYPO="1", CLEANROOM_REPOSITORY_PORT="0")
    problems = {problem.place: problem.message for problem in raised.value.problems}
    file = tmp_path / "cleanroom.toml"
    assert problems == {
        f"{file}: loose": "unknown key",
        f"{file}: refs.poll": "must be a number",
        f"{file}: refs.nonsense": "unknown key",
        f"{file}: master.port": "must be from 1 to 65535",
        f"{file}: master.attempts": "must be a whole number",
        f"{file}: worker.isolation": "must be one of: auto, kvm, container, emulated",
        f"{file}: worker.parallel": "must be a whole number",
        "CLEANROOM_TYPO": "unknown setting",
        "CLEANROOM_REPOSITORY_PORT": "must be from 1 to 65535",
    }
    assert raised.value.exit_status == 2


@pytest.mark.parametrize("value", ["nan", "inf", "-inf", "1e400"])
def test_a_number_is_a_real_one(tmp_path: Path, value: str) -> None:
    with pytest.raises(InputError):
        read(tmp_path, CLEANROOM_REFS_POLL=value)


@pytest.mark.parametrize("content", [b"[refs", b"\xff\xfe"])
def test_a_file_that_is_no_toml_is_told_with_its_name(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "cleanroom.toml").write_bytes(content)
    with pytest.raises(InputError, match=r"cleanroom\.toml"):
        load({"CLEANROOM_SITE": str(tmp_path), "CLEANROOM_STATE": str(tmp_path)})


def test_installations_are_told_apart_by_their_state(tmp_path: Path) -> None:
    one, other = (load({"CLEANROOM_STATE": str(tmp_path / name)}) for name in ("one", "other"))
    assert one.instance != other.instance
    assert len(str(one.runtime / "postgresql" / ".s.PGSQL.5432")) <= 107


def test_services_of_several_users_meet_where_they_are_told(tmp_path: Path) -> None:
    told = read(tmp_path, CLEANROOM_RUNTIME="/run/somewhere")
    assert told.runtime == Path("/run/somewhere")
    assert read(tmp_path).runtime != told.runtime


@pytest.mark.parametrize("value", ["2:30", "24:00", "02:60", "02:30:00", "night"])
def test_a_time_of_the_day_is_one(tmp_path: Path, value: str) -> None:
    assert read(tmp_path, CLEANROOM_SCHEDULES_NIGHTLY="02:30").text("schedules.nightly") == "02:30"
    with pytest.raises(InputError, match=r"must be a time of the day such as 02:30"):
        read(tmp_path, CLEANROOM_SCHEDULES_NIGHTLY=value)


def test_what_is_secret_may_stand_in_a_file(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("hush\n")
    assert read(tmp_path, CLEANROOM_WEBHOOKS_SECRET_FILE=str(secret)).optional("webhooks.secret") == "hush"
    with pytest.raises(InputError) as raised:
        read(
            tmp_path,
            CLEANROOM_WEBHOOKS_SECRET_FILE=str(secret),
            CLEANROOM_WEBHOOKS_SECRET="other",
            CLEANROOM_MAIL_PASSWORD_FILE=str(tmp_path / "none"),
            CLEANROOM_WEB_PORT_FILE=str(secret),
        )
    problems = {problem.place: problem.message for problem in raised.value.problems}
    assert problems["CLEANROOM_WEBHOOKS_SECRET_FILE"].startswith("CLEANROOM_WEBHOOKS_SECRET is set, too")
    assert "No such file" in problems["CLEANROOM_MAIL_PASSWORD_FILE"]
    assert problems["CLEANROOM_WEB_PORT_FILE"] == "unknown setting"


def test_a_place_is_a_host_and_a_port(tmp_path: Path) -> None:
    assert read(tmp_path, CLEANROOM_NETWORK_REPOSITORY="web-1.example:80").optional("network.repository")
    for wrong in ("http://repository:80", "repository", "repository:0", "repository:70000"):
        with pytest.raises(InputError):
            read(tmp_path, CLEANROOM_NETWORK_REPOSITORY=wrong)
