"""`cleanroom image`: the root file systems from which guests start."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from cleanroom_base.errors import InfrastructureError
from cleanroom_images.build import build as build_image
from cleanroom_images.catalogue import Catalogue, Entry
from cleanroom_images.probing import missing
from cleanroom_master.cli.frame import Commands, Context
from cleanroom_workers.host import Host

COLUMNS = ["name", "built", "digest", "architecture", "formats", "built_at", "extends", "outdated", "description"]


def register(commands: Commands) -> None:
    """Declare the verbs of `image`."""
    image = commands.noun("image", "root file systems from which guests start")
    building = image.verb(
        "build", build, "build a described image; takes one to two minutes", "cleanroom image build debian-12"
    )
    building.add_argument("name")
    building.add_argument(
        "--architecture",
        help="build it for another architecture, such as arm64, as the image NAME-ARCHITECTURE; "
        "by emulation, which takes some twenty minutes",
    )
    building.add_argument("--if-missing", action="store_true", help="do nothing when it is there already")
    refreshing = image.verb(
        "refresh",
        refresh,
        "build images anew with what their mirrors have by now, try them, and switch to those that are good",
        "cleanroom image refresh debian-12 debian-13",
    )
    refreshing.add_argument("names", nargs="*", metavar="NAME", help="default: all that are built from a description")
    bringing = image.verb(
        "import",
        bring,
        "take in a root tar, a qcow2 or a raw disk of your own",
        "cleanroom image import rocky-9 rocky.qcow2",
    )
    bringing.add_argument("name")
    bringing.add_argument("file")
    image.verb("list", list_all, "show all images", "cleanroom image list")
    for name, handler, help_text in (
        ("show", show, "show one image"),
        ("verify", verify, "compare all of an image's content with what was sealed"),
        ("remove", remove, "remove a built image"),
    ):
        verb = image.verb(name, handler, help_text, f"cleanroom image {name} debian-12")
        verb.add_argument("name")
        if name == "remove":
            verb.add_argument("--force", action="store_true", help="even when guests run from it")


def _catalogue(context: Context) -> Catalogue:
    return Catalogue.of(context.settings)


def build(context: Context, arguments: argparse.Namespace) -> None:
    """Build, with progress on standard error."""
    catalogue = _catalogue(context)
    name = arguments.name
    if arguments.architecture is not None:
        name = catalogue.variant(name, arguments.architecture)
    entry = catalogue.entry(name)
    if not (arguments.if_missing and entry.image is not None):
        build_image(catalogue, name, observer=context.progress)
    _emit(context, catalogue.entry(name))


def refresh(context: Context, arguments: argparse.Namespace) -> int:
    """Refresh, with progress on standard error; what was refused stays as it was, and makes the exit status 3."""
    from cleanroom_workers.refresh import refresh as refresh_images

    done = [asdict(one) for one in refresh_images(context.settings, arguments.names, context.progress)]
    context.rows(done, ["name", "outcome", "digest", "why"], "no image is built from a description")
    return InfrastructureError.exit_status if any(one["outcome"] == "refused" for one in done) else 0


def bring(context: Context, arguments: argparse.Namespace) -> None:
    """Import a user's own image."""
    from cleanroom_images.importing import import_image

    catalogue = _catalogue(context)
    import_image(catalogue, arguments.name, Path(arguments.file), observer=context.progress)
    _emit(context, catalogue.entry(arguments.name))


def list_all(context: Context, _: argparse.Namespace) -> None:
    """Show all images, built or not."""
    rows = [_shown(entry) for entry in _catalogue(context).entries()]
    short = rows if context.as_json else [{**row, "digest": str(row["digest"] or "-")[:12]} for row in rows]
    context.rows(short, COLUMNS, "no images are described")


def show(context: Context, arguments: argparse.Namespace) -> None:
    """Show one image."""
    catalogue = _catalogue(context)
    _emit(context, catalogue.entry(arguments.name), catalogue.store.former(arguments.name))


def verify(context: Context, arguments: argparse.Namespace) -> None:
    """Exit status 0 when nothing changed; otherwise the error names the differences."""
    image = _catalogue(context).verify(arguments.name)
    context.emit({"name": image.name, "digest": image.digest, "intact": True}, f"{image.name} is as it was sealed")


def remove(context: Context, arguments: argparse.Namespace) -> None:
    """Remove a built image; its description stays."""
    # A guest that is only kept ready is nobody's reason to keep the image.
    Host(context.settings).discard_ready(arguments.name)
    _catalogue(context).remove(arguments.name, force=arguments.force)
    context.emit({"removed": arguments.name}, f"{arguments.name} is removed")


def _emit(context: Context, entry: Entry, former: Sequence[str] = ()) -> None:
    shown = _shown(entry)
    tree = entry.image.tree if entry.image else None
    lacking = [] if tree is None else [str(lack) for lack in missing(tree)]
    lines = [f"{key.replace('_', ' '):<14}{value}" for key, value in shown.items()]
    lines += [f"{'missing':<14}{lack}" for lack in lacking] + [f"{'former':<14}{digest}" for digest in former]
    context.emit({**shown, "missing": lacking, "former": list(former)}, "\n".join(lines))


def _shown(entry: Entry) -> dict[str, object]:
    image, described = entry.image, entry.description
    return {
        "name": entry.name,
        "built": image is not None,
        "digest": image.digest if image else None,
        "architecture": image.architecture if image else (described.architecture if described else None),
        "formats": image.formats if image else (described.formats if described else ()),
        "built_at": image.built_at if image else None,
        "size": image.size if image else None,
        "description": described.description if described else "imported",
        "extends": described.extends if described else None,
        "outdated": entry.outdated,
    }
