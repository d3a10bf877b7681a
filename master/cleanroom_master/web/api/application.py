"""The interface as an application of its own, so that its errors and its description are its own."""

from __future__ import annotations

from typing import Any

from fastapi import Depends, FastAPI

from cleanroom_master.web.api import facts, problems, published
from cleanroom_master.web.api.access import may_read
from cleanroom_master.web.api.problems import MEDIA_TYPE, PROBLEMS
from cleanroom_master.web.site import Site
from cleanroom_master.web.webhooks import receiving
from cleanroom_master.web.webhooks.receiving import Receiver

VERSION = "1"
ADDRESS = f"/api/v{VERSION}"
_COMMON: dict[int | str, dict[str, Any]] = {status: PROBLEMS[status] for status in (401, 403, 404, 422, 429, 500, 503)}
_ABOUT = """\
The facts of the pages of a Cleanroom, for programs. Lists go on where their Link header says (`rel="next"`); every
answer has an entity tag for `If-None-Match`; what goes wrong is told as RFC 9457 has it. Keys are added, never renamed.
"""


def create(site: Site, receiver: Receiver | None = None) -> FastAPI:
    """The interface of a site, to be mounted at `ADDRESS`. Without a receiver no webhooks are taken."""
    application = FastAPI(
        title="Cleanroom",
        version=VERSION,
        description=_ABOUT,
        docs_url=None,
        redoc_url=None,
        servers=[{"url": ADDRESS}],
        root_path_in_servers=False,
    )
    application.state.site, application.state.receiver = site, receiver
    for router in (facts.router, published.router):
        application.include_router(
            router, dependencies=[Depends(may_read)], responses={**_COMMON, 304: {"description": "Not Modified"}}
        )
    application.include_router(receiving.router, responses={500: PROBLEMS[500]})
    problems.register(application)
    _describe(application)
    return application


def _describe(application: FastAPI) -> None:
    """Have the description say of problems what they are sent as."""
    describe = application.openapi

    def described() -> dict[str, Any]:
        if application.openapi_schema is None:
            schema = describe()
            for path in schema["paths"].values():
                for operation in path.values():
                    for answer in operation["responses"].values():
                        for content in answer.get("content", {}).values():
                            if content.get("schema", {}).get("$ref", "").endswith("/Problem"):
                                answer["content"] = {MEDIA_TYPE: content}
                                break
            application.openapi_schema = schema
        return application.openapi_schema

    application.openapi = described  # type: ignore[method-assign]
