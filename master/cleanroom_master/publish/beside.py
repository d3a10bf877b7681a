"""Where consumers find what is published beside packages."""

from __future__ import annotations

from typing import Any

from cleanroom_master.publish.attachments import BILL, PROVENANCE
from cleanroom_master.publish.generation import root_of
from cleanroom_master.publish.package import Stream, file_path


def add_addresses(view: dict[str, Any], url: str) -> None:
    """Say in a release's view where the statement and the bill of materials of each published package are."""
    for one in view["provenance"]:
        image = one["target"].partition("/")[0]
        root = root_of(Stream("yum" if one["format"] == "rpm" else "apt", one["channel"], image))
        address = f"{url}/{root}/{file_path(one['name'], one['sha256'], one['file'])}"
        one["statement_url"], one["bill_url"] = address + PROVENANCE, address + BILL
