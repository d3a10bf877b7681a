"""`cleanroom product`: the git repositories that are watched."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Sequence
from pathlib import Path

from cleanroom_base.errors import InputError
from cleanroom_db import dependencies, products
from cleanroom_db.dependencies import Dependency, Graph
from cleanroom_master import planning
from cleanroom_master.cli.frame import Commands, Context, plain, table
from cleanroom_master.refs import repositories
from cleanroom_recipes import loader, names, places
from cleanroom_recipes.model import Recipe

COLUMNS = ["name", "url", "depends_on", "watched_at", "watch_error"]


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
    if recipe is not None:
        with context.database.transaction() as cursor:
            dependencies.declare(cursor, {product.name: recipe.depends})
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
    """Show all watched products, and which depend on each other in a circle."""
    found, graph = _dependencies(context)
    rows = [
        _shown(product) | _related(product.name, found, graph) for product in products.list_watched(context.database)
    ]
    if not rows:
        context.rows(rows, COLUMNS, "no products yet; 'cleanroom product add --help' shows how to add one")
        return
    told = [{**row, "depends_on": sorted(graph.needs.get(str(row["name"]), ()))} for row in rows]
    context.emit(rows, "\n".join([table(told, COLUMNS), *map(in_a_circle, graph.cycles)]))


def show(context: Context, arguments: argparse.Namespace) -> None:
    """Show one product, and on which others it depends."""
    found, graph = _dependencies(context)
    product = _shown(products.get(context.database, arguments.name))
    related = _related(arguments.name, found, graph)
    told = product | {
        "depends_on": ", ".join(_told(one) for one in found if one.product == arguments.name) or None,
        "dependents": ", ".join(graph.dependents(arguments.name)) or None,
    }
    lines = [f"{key.replace('_', ' '):<18}{plain(value)}" for key, value in told.items() if value not in (None, ())]
    lines += [in_a_circle(cycle) for cycle in graph.cycles if arguments.name in cycle]
    context.emit(product | related, "\n".join(lines))


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


def in_a_circle(cycle: Sequence[str]) -> str:
    """A sentence about products that depend on each other."""
    return f"in a circle: {' -> '.join([*cycle, cycle[0]])}"


def _dependencies(context: Context) -> tuple[list[Dependency], Graph]:
    found = dependencies.list_all(context.database)
    return found, Graph.of((one.product, one.depends_on) for one in found)


def _related(name: str, found: Iterable[Dependency], graph: Graph) -> dict[str, object]:
    """On which products one depends and how that is known, which depend on it, and the circle that it is in."""
    return {
        "depends_on": [
            {"product": one.depends_on, "origin": one.origin, "packages": one.packages}
            for one in found
            if one.product == name
        ],
        "dependents": graph.dependents(name),
        "cycle": graph.cycle(name),
    }


def _told(dependency: Dependency) -> str:
    by = f": {' '.join(dependency.packages[:5])}" if dependency.packages else ""
    return f"{dependency.depends_on} (by {dependency.origin}{by})"
