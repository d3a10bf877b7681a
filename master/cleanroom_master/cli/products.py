"""`cleanroom product`: the git repositories that are watched."""

from __future__ import annotations

import argparse
from pathlib import Path

from cleanroom_base.errors import InputError
from cleanroom_db import products
from cleanroom_master import planning
from cleanroom_master.cli.frame import Commands, Context, plain
from cleanroom_master.refs import repositories
from cleanroom_recipes import loader, names, places
from cleanroom_recipes.model import Recipe

COLUMNS = ["name", "url", "watched_at", "watch_error"]


def register(commands: Commands) -> None:
    """Declare the verbs of `product`."""
    product = commands.noun("product", "watched git repositories")
    adding = product.verb(
        "add", add, "watch a git repository", "cleanroom product add hello https://example.org/hello.git --recipe hello"
    )
    adding.add_argument("name", help="what the product is called here")
    adding.add_argument(
        "url", help="address of the git repository (the site's settings say which transports may be used)"
    )
    source = adding.add_mutually_exclusive_group()
    source.add_argument("--recipe", metavar="NAME", help="a recipe that the site or Cleanroom has under this name")
    source.add_argument("--file", metavar="PRODUCT.toml", help="a recipe in a file")
    adding.add_argument("--existing", action="store_true", help="also release the tags that are there already")
    listing = product.verb("list", list_all, "show all products", "cleanroom product list")
    assert listing
    showing = product.verb(
        "show", show, "show one product and its recipe", "cleanroom product show hello --format json"
    )
    showing.add_argument("name")
    removing = product.verb(
        "remove", remove, "watch a repository no longer; what was built stays", "cleanroom product remove hello"
    )
    removing.add_argument("name")


def add(context: Context, arguments: argparse.Namespace) -> None:
    """Check everything first, then record the product in one transaction."""
    if not names.is_name(names.PRODUCT, arguments.name):
        raise InputError(
            f"{arguments.name!r} cannot be a product's name",
            hint="lower-case letters, digits, and + . - inside; at most 64 characters",
        )
    settings = context.settings
    recipe = _recipe(context, arguments)
    if recipe is not None:
        planning.check_targets(settings, recipe)
    product = repositories.add(
        settings,
        context.database,
        arguments.name,
        arguments.url,
        recipe=None if recipe is None else loader.to_json(recipe),
        tag_patterns=("*",) if recipe is None else recipe.tags,
        branches=() if recipe is None else recipe.branches,
        existing=arguments.existing,
    )
    context.emit(
        _shown(product),
        f"{product.name} is watched: {product.url}"
        + ("; the tags that are there are released" if arguments.existing else ""),
    )


def _recipe(context: Context, arguments: argparse.Namespace) -> Recipe | None:
    if arguments.file is not None:
        return loader.read(Path(arguments.file), name=arguments.name, url=arguments.url)
    if arguments.recipe is None:
        return None
    known = recipes(context.settings.site / "recipes")
    if arguments.recipe not in known:
        raise InputError(f"there is no recipe {arguments.recipe!r}", hint=f"there are: {', '.join(sorted(known))}")
    return loader.read(known[arguments.recipe], name=arguments.name, url=arguments.url)


def recipes(site: Path) -> dict[str, Path]:
    """All recipes by name: those that come with Cleanroom, and the site's, which win."""
    return {file.stem: file for directory in (places.products(), site) for file in directory.glob("*.toml")}


def list_all(context: Context, _: argparse.Namespace) -> None:
    """Show all watched products."""
    rows = [_shown(product) for product in products.list_watched(context.database)]
    context.rows(rows, COLUMNS, "no products yet; 'cleanroom product add --help' shows how to add one")


def show(context: Context, arguments: argparse.Namespace) -> None:
    """Show one product."""
    product = _shown(products.get(context.database, arguments.name))
    lines = [f"{key.replace('_', ' '):<18}{plain(value)}" for key, value in product.items() if value not in (None, ())]
    context.emit(product, "\n".join(lines))


def remove(context: Context, arguments: argparse.Namespace) -> None:
    """Watch a product no longer."""
    products.remove(context.database, arguments.name)
    context.emit({"removed": arguments.name}, f"{arguments.name} is no longer watched")


def _shown(product: products.Product) -> dict[str, object]:
    return {
        "name": product.name,
        "url": product.url,
        "tag_patterns": product.tag_patterns,
        "branches": product.branches,
        "created_at": product.created_at,
        "watched_at": product.watched_at,
        "watch_error": product.watch_error,
        "recipe": product.recipe,
    }
