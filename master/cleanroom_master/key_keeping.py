"""The publisher's keys over time: which of them sign, how one takes over from another, and when one goes.

While two keys overlap, both sign all that consumers check at each update (InRelease, Release.gpg, repomd.xml.asc,
statements), and both are in the published key file: a consumer who has either goes on. An rpm bears one signature,
which never changes; the older key makes it as long as it signs, and stays published, apart, after that.

What the record says is done at once in the signer, and shown by a generation that is signed anew: a process that is
killed between finds at its next look that what is published is signed by others (`Repository.must_sign_anew`).
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

from cleanroom_base.errors import InputError
from cleanroom_db import requests, signing_keys
from cleanroom_db.connection import Database
from cleanroom_db.requests import Request
from cleanroom_db.signing_keys import SigningKey
from cleanroom_db.states import RequestState
from cleanroom_master.making import Change, make
from cleanroom_master.publish.repository import Repository
from cleanroom_master.publish.signing import Key, Signer

# Enough for consumers who update once a month.
OVERLAP = timedelta(days=60)


def load(database: Database, signer: Signer) -> None:
    """Let the keys sign that the record names. Where it names none yet, the newest one begins it."""
    signer.reload()
    known = signing_keys.everyone(database)
    if not known and signer.newest is not None:
        _record(database, signer, signer.newest)
        known = signing_keys.everyone(database)
    there = {key.fingerprint: key for key in signer.known}
    for one in known:
        # Somebody extended its validity by hand.
        if one.fingerprint in there and there[one.fingerprint].expires != one.expires_at:
            _note_validity(database, signer, there[one.fingerprint])
    signer.use([one.fingerprint for one in _signing(known)], {one.fingerprint: one.public_key for one in known})


def rotate(database: Database, repository: Repository, request: Request) -> None:
    """Let a new key sign, together with the one that signs now for the time that the request names.

    Raises InputError while another rotation is under way, InfrastructureError when no key can be made.
    """
    signer = repository.signer
    known = signing_keys.everyone(database)
    fresh = request.result.get("fingerprint")
    if fresh is None:
        signing = _signing(known)
        if len(signing) > 1:
            raise InputError(
                f"a rotation is under way: {signing[0].fingerprint} signs beside its successor"
                f" {signing[-1].fingerprint} until {_date(signing[0].retires_at)}",
                hint="cleanroom repository key retire ends it",
            )
        if signer.vanished and not request.forced:
            raise InputError(
                "the key that signs is not there, so it cannot sign together with a new one",
                hint="bring it back from a backup; if it is lost: cleanroom repository key rotate --lost",
            )
        fresh = _new_key(signer, known).fingerprint
        days = float(request.parameters.get("overlap_days", OVERLAP / timedelta(days=1)))
        with database.transaction():
            _record(database, signer, next(key for key in signer.known if key.fingerprint == fresh))
            signing_keys.leave(database, fresh, datetime.now(UTC) + timedelta(days=days))
            if request.forced:
                for one in signing:
                    signing_keys.retire(database, one.fingerprint, f"lost: {request.reason}")
            requests.note(database, request.id, "", {"fingerprint": fresh})
    _settle(database, repository, request, {"fingerprint": fresh}, f"the key {fresh} signs")


def retire(database: Database, repository: Repository, request: Request) -> None:
    """Let the key that leaves sign no more, before its time. Raises InputError when none leaves."""
    leaving = [one for one in _signing(signing_keys.everyone(database)) if one.retires_at is not None]
    done = request.result.get("fingerprint")
    if done is None:
        if not leaving:
            raise InputError(
                "only one key signs, and without it nothing can be published",
                hint="cleanroom repository key rotate makes its successor",
            )
        done = leaving[0].fingerprint
        with database.transaction():
            signing_keys.retire(database, done, f"retired by {request.actor}: {request.reason}")
            requests.note(database, request.id, "", {"fingerprint": done})
    _settle(database, repository, request, {"fingerprint": done}, f"the key {done} signs no more")


def extend(database: Database, repository: Repository, request: Request) -> None:
    """Let the newest key that signs be valid for longer. Raises InfrastructureError when gpg cannot do it."""
    signer = repository.signer
    load(database, signer)
    if signer.vanished:
        raise InputError("the key that signs is not there", hint="bring it back from a backup")
    last = _signing(signing_keys.everyone(database))[-1]
    key = signer.extend(last.fingerprint)
    _note_validity(database, signer, key)
    result = {"fingerprint": key.fingerprint, "expires_at": None if key.expires is None else key.expires.isoformat()}
    _settle(database, repository, request, result, f"the key {key.fingerprint} is valid until {_date(key.expires)}")


def retire_due(database: Database, signer: Signer) -> list[str]:
    """Retire keys whose overlap has ended, or that expired during it; returns which."""
    now = datetime.now(UTC)
    gone = [
        one.fingerprint
        for one in _signing(signing_keys.everyone(database))
        if one.retires_at is not None and (one.retires_at <= now or (one.expires_at or one.retires_at) <= now)
    ]
    for fingerprint in gone:
        signing_keys.retire(database, fingerprint, "its overlap with its successor ended")
    if gone:
        load(database, signer)
    return gone


def _settle(
    database: Database, repository: Repository, request: Request, result: Mapping[str, object], why: str
) -> None:
    """Show consumers what the record says now; where nothing is published, there is nothing to show."""
    load(database, repository.signer)
    if repository.current() is None:
        requests.finish(database, request.id, RequestState.DONE, "", result)
        return
    requests.note(database, request.id, "", result)
    reason = f"{why}: {request.reason}" if request.reason else why
    make(database, repository, Change(actor=request.actor, reason=reason, request=request.id, sign_anew=True))


def _new_key(signer: Signer, known: list[SigningKey]) -> Key:
    """A key that never signed: one that a kill kept from being recorded, else a new one."""
    recorded = {one.fingerprint for one in known}
    signer.reload()
    left = [key for key in signer.known if key.fingerprint not in recorded]
    now = datetime.now(UTC)
    fit = [key for key in left if key.expires is None or key.expires > now]
    return fit[-1] if fit else signer.make_key()


def _record(database: Database, signer: Signer, key: Key) -> None:
    signing_keys.add(
        database,
        fingerprint=key.fingerprint,
        user_id=key.user_id,
        public_key=signer.exported(key.fingerprint).decode(),
        made_at=key.created,
        expires_at=key.expires,
    )


def _note_validity(database: Database, signer: Signer, key: Key) -> None:
    signing_keys.extend(database, key.fingerprint, key.expires, signer.exported(key.fingerprint).decode())


def _signing(known: list[SigningKey]) -> list[SigningKey]:
    return [one for one in known if one.retired_at is None]


def _date(moment: datetime | None) -> str:
    return "for ever" if moment is None else f"{moment:%Y-%m-%d}"
