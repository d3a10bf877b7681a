"""What changed in an image since the one before?"""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query
from fastapi.responses import Response

from cleanroom_base.errors import InputError
from cleanroom_db import environments
from cleanroom_master.web.site import Everything
from cleanroom_master.web.templating import Render

router = APIRouter(include_in_schema=False)

Digest = Annotated[str, Query(max_length=100)]


@router.get("/image/{name}")
def image(name: str, everything: Everything, render: Render, before: Digest, now: Digest) -> Response:
    """The packages in which two contents of an image differ."""
    held = {digest: environments.of_image(everything, digest) for digest in (before, now)}
    if unknown := [digest for digest, packages in held.items() if not packages]:
        raise InputError(f"it is not known what the image {name[:100]} with the digest {unknown[0]} holds")
    return render(
        "image.html",
        name=name,
        before=before,
        now=now,
        changes=environments.changes(held[before], held[now]),
        count=len(held[now]),
    )
