"""The support bundle: what there is to know, and nothing secret, wherever a secret may be."""

from __future__ import annotations

import base64
import json
import tarfile
from pathlib import Path
from urllib.parse import quote, quote_plus

import psycopg2
import pytest
from database_server import Server, add_product

from cleanroom_base.errors import InfrastructureError, InputError
from cleanroom_base.settings import SETTINGS, load
from cleanroom_db import ref_events, releases
from cleanroom_db.connection import Database
from cleanroom_db.ref_events import NewRef, RefDetails
from cleanroom_db.roles import Role
from cleanroom_master import circumstances, support_bundle

COMMIT = "0123456789abcdef0123456789abcdef01234567"
# Each with what programs write in other ways: quotes, what is encoded in addresses, what is no ASCII.
_SPECIAL = " &/+?'\"\\ü"


class Planted:
    """Secrets, each of another place, and nowhere twice."""

    def __init__(self) -> None:
        self.secrets: dict[str, str] = {}

    def __call__(self, place: str, *, plain: bool = False) -> str:
        made = f"planted-{len(self.secrets)}-{place.replace(' ', '-')}{'' if plain else _SPECIAL}"
        self.secrets[place] = made
        return made

    def found_in(self, text: str) -> list[str]:
        """The places whose secrets stand in a text, as they are or as programs write them."""
        return [place for place, secret in self.secrets.items() if any(form in text for form in traces(secret))]


def written(secret: str) -> list[str]:
    """A secret as programs write it."""
    encoded = secret.encode()
    whole = [base64.b64encode(before + encoded).decode() for before in (b"", b"x", b"xy", b"anna:")]
    more = [quote(secret, safe=""), quote_plus(secret), json.dumps(secret)[1:-1], repr(secret)[1:-1], encoded.hex()]
    return [secret, *whole, *[part.translate(str.maketrans("+/", "-_")) for part in whole], *more]


def traces(secret: str) -> list[str]:
    """By what it is known that a secret stands in a text: of base64 what neither begins nor ends it, and half of it."""
    parts = [form[6:-6] for form in written(secret)]
    return [*parts, *(part[: len(part) // 2] for part in parts if len(part) > 30)]


@pytest.fixture
def plant() -> Planted:
    return Planted()


def environment(plant: Planted, server: Server, name: str, tmp_path: Path) -> dict[str, str]:
    """Settings by file and by environment, with a secret in each that may have one."""
    state, site = tmp_path / "state", tmp_path / "site"
    for directory in (state / "secrets", state / "publisher", state / "run", site / "hooks"):
        directory.mkdir(parents=True)
    (state / "secrets/worker").write_text(plant("worker password") + "\n")
    (state / "secrets/database-web").write_text(plant("database role"))
    (state / "publisher/pin").write_text(plant("pin"))
    (site / "hooks/hello").write_text(plant("webhook secret of a product"))
    (site / "pin").write_text(plant("pin file"))
    for kind in ("secret", "token"):
        (site / f"{kind}_file").write_text(plant(f"notification {kind}"))
    (site / "url_file").write_text(f"https://chat.example.org/{plant('chat address in a file', plain=True)}")
    room = f"https://chat.example.org/services/{plant('chat address', plain=True)}"
    told = f"https://x:{quote(plant('webhook address'), safe='')}@example.org/?key={plant('query', plain=True)}"
    (site / "notifications.toml").write_text(
        f'[a]\nkind = "webhook"\nurl = "{told}"\nsecret_file = "{site / "secret_file"}"\n'
        f'[b]\nkind = "chat"\nurl = "{room}"\n[c]\nkind = "chat"\nurl_file = "{site / "url_file"}"\n'
        f'[d]\nkind = "gitea"\nurl = "https://git.example.org"\ntoken_file = "{site / "token_file"}"\n'
    )
    written = [f"[{key.partition('.')[0]}]\n{key.partition('.')[2]} = " for key in ("mail.password", "openid.secret")]
    (site / "cleanroom.toml").write_text(
        "".join(f"{line}{json.dumps(plant(f'file {number}'))}\n" for number, line in enumerate(written))
        + f'[delivery]\nurl = "https://u:{quote(plant("delivery address"), safe="")}@dav.example.org/"\n'
        + f'[publisher]\npin_file = "{site / "pin"}"\n[webhooks]\nsecrets = "{site / "hooks"}"\n'
    )
    urls = {
        setting.variable: f"postgresql://u:{quote(plant(setting.key), safe='')}@127.0.0.1:1/none"
        for setting in SETTINGS
        if setting.key.startswith("database.") and setting.secret and setting.key != "database.url"
    }
    return {
        "CLEANROOM_STATE": str(state),
        "CLEANROOM_SITE": str(site),
        "CLEANROOM_WEBHOOKS_SECRET": plant("webhook secret"),
        "CLEANROOM_DELIVERY_PASSWORD": plant("delivery password"),
        **urls,
        "CLEANROOM_DATABASE_URL": server.url(Role.OWNER, name),
    }


def log_everything(plant: Planted, state: Path) -> None:
    """Logs in which all of them stand, as programs write them; and what only its form tells."""
    lines = [form for secret in list(plant.secrets.values()) for form in written(secret)]
    session, token = plant("session", plain=True), f"cleanroom_{plant('token of a program', plain=True)}{'x' * 40}"
    address = f"fatal: could not read https://git:{quote_plus(plant('git credentials', plain=True))}@git.example.org/a"
    lines += [f"Cookie: cleanroom_session={session}", f"Authorization: Bearer {token}", f"refused {token}", address]
    lines += [f"-----BEGIN PGP PRIVATE KEY BLOCK-----\n{plant('printed key')}\n-----END PGP PRIVATE KEY BLOCK-----"]
    # No program but gpg's agent reads it.
    (state / "publisher/gnupg/private-keys-v1.d").mkdir(parents=True)
    (state / "publisher/gnupg/private-keys-v1.d/A.key").write_text(plant("signing key"))
    (state / "run/web.log").write_text("\n".join(["the first line", *lines, "the last line"]))


def unpacked(file: Path) -> dict[str, str]:
    with tarfile.open(file) as tar:
        return {
            member.name.partition("/")[2]: stream.read().decode()
            for member in tar
            if (stream := tar.extractfile(member)) is not None
        }


def test_nothing_secret_is_in_a_support_bundle(
    owner: Database, server: Server, name: str, plant: Planted, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    variables = environment(plant, server, name, tmp_path)
    add_product(owner)
    git = plant("git address")
    with owner.transaction() as cursor:
        problem = f"https://anna:{quote(git, safe='')}@git.example.org/hello.git does not answer: {git}"
        address = f"https://anna:{quote(git, safe='')}@git.example.org/hello.git"
        cursor.execute("UPDATE cleanroom.product SET url = %(url)s, watch_error = %(why)s", url=address, why=problem)
    monkeypatch.setenv("PGPASSWORD", plant("environment"))
    monkeypatch.setenv("http_proxy", f"http://u:{quote(plant('proxy'), safe='')}@127.0.0.1:9")
    settings = load(variables)
    everything = [form for secret in plant.secrets.values() for form in written(secret)]
    log_everything(plant, settings.state)
    password = psycopg2.extensions.parse_dsn(server.url(Role.OWNER, name)).get("password")

    file = tmp_path / "support.tar.gz"
    members = support_bundle.write(settings, file, {"status": lambda: everything, "doctor": lambda: {"x": everything}})
    content = unpacked(file)
    assert set(content) == set(members)
    assert plant.found_in("\n".join(plant.secrets.values())) == list(plant.secrets)
    left = {member: plant.found_in(text) for member, text in content.items()}
    assert {member: places for member, places in left.items() if places} == {}
    assert password is None or all(password not in text for text in content.values())
    # It was searched, not emptied.
    log = content["logs/web.log"]
    assert log.startswith("the first line\n") and log.endswith("the last line")
    assert "https://git:(masked)@git.example.org/a" in log
    assert file.stat().st_mode & 0o777 == 0o600


def test_a_support_bundle_says_what_there_is_to_know(
    owner: Database, server: Server, name: str, tmp_path: Path
) -> None:
    add_product(owner)
    ref_events.record_many(owner, "hello", [NewRef("v1", RefDetails(COMMIT))], recorded_by="test")
    plan = releases.Planned((releases.PlannedBuild("debian-12/deb", ("build",)),), {}, "0", "testing")
    assert releases.claim_next(owner, lambda *_: plan) is not None
    with owner.transaction() as cursor:
        cursor.execute(
            "UPDATE cleanroom.attempt SET outcome = 'infrastructure', why = 'the mirror is away', finished_at = now()"
        )
    settings = load(
        {
            "CLEANROOM_STATE": str(tmp_path),
            "CLEANROOM_SITE": str(tmp_path),
            "CLEANROOM_DATABASE_URL": server.url(Role.OWNER, name),
            "CLEANROOM_WEB_PORT": "9999",
            "CLEANROOM_MAIL_PASSWORD": "a password",
        }
    )

    def away() -> None:
        raise InfrastructureError("libvirt is away", hint="start it")

    file = tmp_path / "support.tar.gz"
    support_bundle.write(settings, file, {"doctor": away})
    content = unpacked(file)
    told = {member: json.loads(text) for member, text in content.items() if member.endswith(".json")}
    assert told["doctor.json"] == {"cannot be told": ["libvirt is away\n  hint: start it"]}
    assert told["settings.json"]["settings"]["mail.password"] == "(set)"
    assert {"web.port", "mail.password", "database.url"} == set(told["settings.json"]["differ_from_default"])
    database = told["database.json"]
    assert database["server"]["number"] >= 150000
    assert {"release", "attempt", "test_case"} <= {table["name"] for table in database["tables"]}
    [spoiled] = database["spoiled_attempts"]
    assert (spoiled["product"], spoiled["ref"], spoiled["why"]) == ("hello", "v1", "the mirror is away")
    assert [one["ref"] for one in told["queue.json"]["queue"]] == ["v1"]
    assert told["versions.json"]["packages"]["buildbot"]
    assert all(member in content["README.txt"] or "/" in member or member == "README.txt" for member in content)


def test_doctor_knows_the_database_and_its_clock(server: Server, name: str, tmp_path: Path) -> None:
    settings = load({"CLEANROOM_STATE": str(tmp_path), "CLEANROOM_DATABASE_URL": server.url(Role.OWNER, name)})
    found = {one.what: one for one in circumstances.database(settings)}
    assert found["database version"].works and found["database version"].detail.startswith("PostgreSQL 1")
    assert found["clock"].works and found["clock"].detail.endswith("0.0 s from the database's")


def test_a_support_bundle_replaces_nothing_and_says_what_it_wants(server: Server, name: str, tmp_path: Path) -> None:
    settings = load({"CLEANROOM_STATE": str(tmp_path), "CLEANROOM_DATABASE_URL": server.url(Role.OWNER, name)})
    file = tmp_path / "support.tar.gz"
    file.write_text("mine")
    for wrong in (file, tmp_path / "support.zip"):
        with pytest.raises(InputError):
            support_bundle.write(settings, wrong, {})
    with pytest.raises(InfrastructureError, match="cannot be written"):
        support_bundle.write(settings, tmp_path / "not/there.tar.gz", {})
    assert file.read_text() == "mine" and sorted(tmp_path.iterdir()) == [file]
