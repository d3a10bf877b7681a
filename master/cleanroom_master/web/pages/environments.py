"""What exactly was installed?"""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query
from fastapi.responses import Response

from cleanroom_db import environments
from cleanroom_master.web.site import Record
from cleanroom_master.web.templating import Render

router = APIRouter(include_in_schema=False)


@router.get("/environment/{digest}")
def environment(
    digest: str, record: Record, render: Render, since: Annotated[str, Query(max_length=64)] = ""
) -> Response:
    """The packages of an environment, or what they differ in from those of another one."""
    packages = environments.packages(record, digest)
    return render(
        "environment.html",
        digest=digest,
        since=since,
        packages=packages,
        changes=environments.changes(environments.packages(record, since), packages) if since else None,
        phases=environments.seen(record, digest),
    )
