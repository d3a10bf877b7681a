"""What is signed of a release's packages before they are published, and whether it is there still.

For each build one statement about all of its packages, so that however many they are, one signature is made; beside it
a bill of materials for each. All of it is ready before a generation is begun.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from cleanroom_base.errors import InfrastructureError, Problem
from cleanroom_db import gates, generations, provenance
from cleanroom_db.connection import Database
from cleanroom_db.generations import NewPackage
from cleanroom_db.provenance import NewlySigned, Signed
from cleanroom_db.publications import Pending
from cleanroom_master.files import FileStore
from cleanroom_master.making import published
from cleanroom_master.provenance import bill_of_materials, statement
from cleanroom_master.provenance.statement import Facts, Subject
from cleanroom_master.publish import envelope, page
from cleanroom_master.publish.attachments import BILL, PROVENANCE
from cleanroom_master.publish.repository import Repository


def attest(
    database: Database,
    repository: Repository,
    files: FileStore,
    publication: Pending,
    packages: Sequence[NewPackage],
) -> None:
    """Sign how these packages, which are in the pool, were built. What is signed already is left as it is.

    Raises InfrastructureError when it cannot be signed.
    """
    builds = provenance.builds(database, publication.release_id)
    digests = [package.sha256 for package in packages]
    # What was published once keeps what was published beside it: an address never changes its content.
    done = provenance.published(database, digests)
    known = provenance.signed(database, digests, [build.id for build in builds])
    done |= {sha256 for sha256 in known if repository.attachments.of(sha256)}
    left = [package for package in packages if package.sha256 not in done]
    if left:
        source = provenance.source(database, publication.release_id)
        with database.transaction() as cursor:
            found = gates.results(cursor, publication.release_id, source.gates)
        for build in builds:
            own = {package.sha256: package.file for package in left if package.target == build.target}
            if own:
                facts = Facts(repository.url, source, build, found, publication.requested_by)
                _attest(database, repository, files, facts, own)


def _attest(
    database: Database, repository: Repository, files: FileStore, facts: Facts, packages: Mapping[str, str]
) -> None:
    vendor = page.slug(repository.origin)
    bills = {
        sha256: bill_of_materials.write(
            repository.facts(sha256), facts.source, facts.build, url=facts.url, vendor=vendor
        )
        for sha256 in packages
    }
    subjects = [Subject(file, sha256, file + BILL, _sha256(bills[sha256])) for sha256, file in packages.items()]
    sealed = envelope.seal(statement.write(facts, subjects), repository.signer)
    good = {one.fingerprint for one in envelope.good_signatures(envelope.read(sealed), repository.signer.keyring())}
    missing = [key.fingerprint for key in repository.signer.keys if key.fingerprint not in good]
    if missing:
        raise InfrastructureError(f"a statement that was just signed has no good signature of {', '.join(missing)}")
    for content in (sealed, *bills.values()):
        _keep(files, content)
    for sha256, bill in bills.items():
        repository.attachments.keep(BILL, bill, [sha256])
    repository.attachments.keep(PROVENANCE, sealed, packages)
    provenance.record(
        database,
        [
            NewlySigned(sha256, facts.build.id, _sha256(sealed), _sha256(bill), tuple(sorted(good)))
            for sha256, bill in bills.items()
        ],
    )


def problems(database: Database, repository: Repository, number: int) -> Iterable[Problem]:
    """What differs from what was signed of the packages of a generation."""
    signed = provenance.of_generation(database, number)
    # As the record has them: what the generation says itself may be what somebody changed.
    for package in map(published, generations.contents(database, number)):
        if package.sha256 in signed:
            for suffix, sha256 in _contents(signed[package.sha256]).items():
                found = repository.attachment(package, suffix)
                if found is None or _sha256(found) != sha256:
                    yield Problem(f"{package.path}{suffix}", "is not what was published beside the package")


def mend(database: Database, repository: Repository, files: FileStore, number: int) -> Iterable[Problem]:
    """Bring back what was signed of the packages of a generation, where it is not as it was; gives what is gone."""
    for sha256, signed in provenance.of_generation(database, number).items():
        for suffix, wanted in _contents(signed).items():
            if _is(repository.attachments.path(sha256, suffix), wanted):
                continue
            kept = files.path(wanted)
            if _is(kept, wanted):
                repository.attachments.keep(suffix, kept.read_bytes(), [sha256])
            else:
                yield Problem(f"{sha256}{suffix}", f"the artifacts do not have its bytes (sha256 {wanted})")


def _contents(signed: Signed) -> dict[str, str]:
    return {PROVENANCE: signed.statement_sha256, BILL: signed.bill_sha256}


def _keep(files: FileStore, content: bytes) -> None:
    """Keep a copy with the artifacts, from which a repository that was edited by hand is made whole."""
    with tempfile.TemporaryDirectory() as scratch:
        fresh = Path(scratch, "fresh")
        fresh.write_bytes(content)
        files.take(fresh, _sha256(content))


def _is(file: Path, sha256: str) -> bool:
    return file.is_file() and _sha256(file.read_bytes()) == sha256


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
