"""The files that make the published channel a source of packages in a guest, for apt and for dnf."""

from __future__ import annotations

from urllib.parse import urlsplit

from cleanroom_recipes.request import ConsumerPage, Repository

# Others than those of the repositories that steps make of the packages under test.
_NAME = "published"
_KEY = f"/etc/apt/keyrings/cleanroom-{_NAME}.asc"
# Known to the steps of a consumer, who does by himself what the page says.
_PAGE = "/cleanroom/page"
# For packages alone: apt is not led to it.
_RETIRED = f"/etc/pki/rpm-gpg/cleanroom-{_NAME}-retired.asc"


def published(repository: Repository, image: str, url: str) -> dict[str, str]:
    """What to write into a guest of `image` that finds the repository at `url`: contents by path.

    Sources of the formats: sources.list(5), apt.conf(5), dnf.conf(5). The layout is the publisher's.
    """
    if repository.page is not None:
        return _as_the_page_says(repository.page, url)
    files = {_KEY: repository.key}
    if repository.apt:
        files[f"/etc/apt/sources.list.d/{_NAME}.sources"] = (
            f"Types: deb\nURIs: {url}/apt\nSuites: {repository.channel}\nComponents: {image}\nSigned-By: {_KEY}\n"
        )
        files |= _direct(url)
    if repository.yum:
        keys = [_KEY, *([_RETIRED] if repository.retired else [])]
        files |= {_RETIRED: repository.retired} if repository.retired else {}
        files[f"/etc/yum.repos.d/{_NAME}.repo"] = (
            f"[{_NAME}]\nname={repository.channel} for {image}\nbaseurl={url}/yum/{image}/{repository.channel}/\n"
            f"enabled=1\ngpgcheck=1\nrepo_gpgcheck=1\ngpgkey={' '.join(f'file://{key}' for key in keys)}\n"
        )
    return files


def _direct(url: str) -> dict[str, str]:
    """The way to package mirrors is a proxy; the repository is next door."""
    return {f"/etc/apt/apt.conf.d/99{_NAME}": f'Acquire::http::Proxy::{urlsplit(url).hostname} "DIRECT";\n'}


def _as_the_page_says(page: ConsumerPage, url: str) -> dict[str, str]:
    """What a consumer reads on the page, with the address at which guests find the repository."""
    blocks = {"key": page.key, "source": page.source, "place": f"{page.place}\n"}
    return {f"{_PAGE}/{name}": text.replace(page.url, url) for name, text in blocks.items()} | _direct(url)
