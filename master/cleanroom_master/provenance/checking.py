"""Checking the provenance of a package on a machine that has nothing but the public key.

Nothing of a site is needed here: no database, no settings. Files and statements are hostile until their signatures and
checksums hold.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import requests

from cleanroom_base.errors import InfrastructureError, InputError, ProductError
from cleanroom_master.provenance.statement import PREDICATE_TYPE, STATEMENT_TYPE
from cleanroom_master.publish import envelope
from cleanroom_master.publish.attachments import BILL, PROVENANCE
from cleanroom_master.publish.envelope import Signature, fields

_TIMEOUT = 60.0


class NotAuthentic(ProductError):
    """A package or its statement is not what the holder of the key signed."""


class NoStatement(InputError):
    """There is no statement about a package."""


@dataclass(frozen=True, slots=True)
class Verified:
    """A package whose provenance holds. `bill` is the SHA-256 of its bill of materials, None where it has none."""

    file: str
    sha256: str
    statement: Mapping[str, Any]
    signatures: tuple[Signature, ...]
    bill: str | None


def verify(file: Path, sealed: bytes, keys: bytes) -> Verified:
    """Check that a statement is signed by one of these public keys, and is about this file.

    Raises NotAuthentic when it is not, InputError for what is no statement, no key or no file.
    """
    sha256 = digest(file)
    opened = envelope.read(sealed)
    good = envelope.good_signatures(opened, envelope.dearmored(keys))
    if not good:
        named = ", ".join(name for name, _ in opened.signatures)
        raise NotAuthentic(
            f"the statement about {file.name} is not signed by the key: it was changed, or another key signed it"
            f" (it names {named!r:.200})",
            hint="take both anew from the repository, and compare the key's fingerprint with one that you got another"
            " way",
        )
    statement = parse(opened)
    subjects = {one["digest"]["sha256"]: one for one in statement["subject"]}
    if sha256 not in subjects:
        about = ", ".join(str(one.get("name")) for one in statement["subject"])
        raise NotAuthentic(
            f"{file.name} is not what the statement is about: its sha256 is {sha256}, and the statement, whose"
            f" signature holds, is about {about:.500}",
            hint="the file was changed, or the statement belongs to another version",
        )
    return Verified(str(subjects[sha256]["name"]), sha256, statement, tuple(good), _bill(statement, subjects[sha256]))


def check_bill(verified: Verified, content: bytes) -> None:
    """Check that a bill of materials is the one that the statement names. Raises NotAuthentic."""
    found = hashlib.sha256(content).hexdigest()
    if found != verified.bill:
        raise NotAuthentic(
            f"the bill of materials beside {verified.file} is not the one that was signed: its sha256 is {found}, not"
            f" {verified.bill}"
        )


def parse(opened: envelope.Envelope) -> dict[str, Any]:
    """The provenance in an envelope, whether its signature holds or not. Raises InputError for what is none."""
    if opened.payload_type != envelope.STATEMENT:
        raise InputError(f"the envelope has no in-toto statement in it, but {opened.payload_type!r:.200}")
    try:
        statement: dict[str, Any] = json.loads(opened.payload)
        kinds = (statement["_type"], statement["predicateType"])
        digests = [one["digest"]["sha256"] for one in statement["subject"]]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise InputError(f"the envelope has no in-toto statement in it: {error!r:.200}") from error
    if kinds != (STATEMENT_TYPE, PREDICATE_TYPE) or not digests:
        raise InputError(f"the statement is no SLSA provenance v1, but {kinds!r:.200}")
    return statement


def fetch(place: str) -> bytes:
    """The statement, or the key, at a path or an address.

    Raises NoStatement when there is nothing, InfrastructureError when the server cannot be reached.
    """
    if urlsplit(place).scheme in ("http", "https"):
        return _download(place)
    try:
        with Path(place).open("rb") as stream:
            return stream.read(envelope.LIMIT + 1)
    except FileNotFoundError as error:
        raise NoStatement(f"there is no {place}") from error
    except OSError as error:
        raise InputError(f"cannot read {place}: {error}") from error


def beside(place: str, suffix: str) -> str:
    """Where a bill of materials is, when the statement is at a place."""
    return place.removesuffix(PROVENANCE) + suffix


def fetch_bill(place: str) -> bytes | None:
    """The bill of materials beside a statement; None where there is none."""
    try:
        return fetch(beside(place, BILL))
    except NoStatement:
        return None


def digest(file: Path) -> str:
    """The SHA-256 of a file. Raises InputError."""
    try:
        with file.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise InputError(f"cannot read {file}: {error}") from error


def summary(statement: Mapping[str, Any]) -> dict[str, Any]:
    """What a statement says in short, by the names that `provenance verify` prints; None for what it does not say."""
    places = {
        "product": "predicate.buildDefinition.externalParameters.product",
        "repository": "predicate.buildDefinition.externalParameters.repository",
        "ref": "predicate.buildDefinition.externalParameters.ref",
        "commit": "predicate.buildDefinition.externalParameters.commit",
        "target": "predicate.buildDefinition.externalParameters.target",
        "recorded_by": "predicate.buildDefinition.internalParameters.recordedBy",
        "requested_by": "predicate.buildDefinition.internalParameters.requestedBy",
        "builder": "predicate.runDetails.builder.id",
        "started_at": "predicate.runDetails.metadata.startedOn",
        "finished_at": "predicate.runDetails.metadata.finishedOn",
    }
    return {name: fields(statement, place) for name, place in places.items()}


def _bill(statement: Mapping[str, Any], subject: Mapping[str, Any]) -> str | None:
    byproducts = fields(statement, "predicate.runDetails.byproducts")
    for one in byproducts if isinstance(byproducts, list) else ():
        if fields(one, "annotations.cleanroom_of") == subject.get("name"):
            found = fields(one, "digest.sha256")
            return None if found is None else str(found)
    return None


def _download(url: str) -> bytes:
    try:
        with requests.get(url, timeout=_TIMEOUT, stream=True) as answer:
            if answer.status_code in (404, 410):
                raise NoStatement(f"there is nothing at {url}")
            answer.raise_for_status()
            content = b""
            for chunk in answer.iter_content(1 << 16):
                content += chunk
                if len(content) > envelope.LIMIT:
                    break
            return content
    except requests.RequestException as error:
        raise InfrastructureError(f"{url} cannot be fetched: {error}", hint="is the server there?") from error
