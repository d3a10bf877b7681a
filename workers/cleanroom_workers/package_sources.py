"""The files that make the published channel a source of packages in a guest, for apt and for dnf."""

from __future__ import annotations

from urllib.parse import urlsplit

from cleanroom_recipes.request import Repository

# Others than those of the repositories that steps make of the packages under test.
_NAME = "published"
_KEY = f"/etc/apt/keyrings/cleanroom-{_NAME}.asc"
# For packages alone: apt is not led to it.
_RETIRED = f"/etc/pki/rpm-gpg/cleanroom-{_NAME}-retired.asc"


def published(repository: Repository, image: str, url: str) -> dict[str, str]:
    """What to write into a guest of `image` that finds the repository at `url`: contents by path.

    Sources of the formats: sources.list(5), apt.conf(5), dnf.conf(5). The layout is the publisher's.
    """
    files = {_KEY: repository.key}
    if repository.apt:
        files[f"/etc/apt/sources.list.d/{_NAME}.sources"] = (
            f"Types: deb\nURIs: {url}/apt\nSuites: {repository.channel}\nComponents: {image}\nSigned-By: {_KEY}\n"
        )
        # The way to package mirrors is a proxy; the repository is next door.
        direct = f'Acquire::http::Proxy::{urlsplit(url).hostname} "DIRECT";\n'
        files[f"/etc/apt/apt.conf.d/99{_NAME}"] = direct
    if repository.yum:
        keys = [_KEY, *([_RETIRED] if repository.retired else [])]
        files |= {_RETIRED: repository.retired} if repository.retired else {}
        files[f"/etc/yum.repos.d/{_NAME}.repo"] = (
            f"[{_NAME}]\nname={repository.channel} for {image}\nbaseurl={url}/yum/{image}/{repository.channel}/\n"
            f"enabled=1\ngpgcheck=1\nrepo_gpgcheck=1\ngpgkey={' '.join(f'file://{key}' for key in keys)}\n"
        )
    return files
