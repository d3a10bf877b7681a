"""`cleanroom database`: the record's schema and roles, where nobody says `cleanroom up`."""

from __future__ import annotations

import argparse

from cleanroom_master.cli.frame import Commands, Context


def register(commands: Commands) -> None:
    """Declare the verbs of `database`."""
    database = commands.noun("database", "the record's schema and roles")
    database.verb(
        "migrate",
        migrate,
        "bring the database to this program's schema, and let the processes' roles in",
        "cleanroom database migrate",
        about="Safe to say at every start. With database.passwords the roles get the passwords that stand there.",
    )


def migrate(context: Context, _: argparse.Namespace) -> None:
    """Apply what is missing, set the roles' rights, and give them their passwords."""
    from cleanroom_db import cluster
    from cleanroom_db import migrate as schema
    from cleanroom_db.connection import Database
    from cleanroom_db.roles import Role

    settings = context.settings
    cluster.ensure(settings)
    database = Database(cluster.database_url(settings, Role.OWNER), wait=settings.number("database.wait"))
    try:
        applied = schema.apply(database)
        roles = cluster.let_in(settings, database)
    finally:
        database.close()
    context.emit(
        {"applied": applied, "schema": len(schema.migrations()), "roles": roles},
        f"the schema is {len(schema.migrations())}, {len(applied)} steps were new"
        + (f"; may log in: {', '.join(roles)}" if roles else ""),
    )
