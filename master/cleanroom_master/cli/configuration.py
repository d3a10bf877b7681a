"""`cleanroom config`: the site's settings, checked and explained."""

from __future__ import annotations

import argparse

from cleanroom_base.settings import SETTINGS
from cleanroom_master.cli.frame import Commands, Context


def register(commands: Commands) -> None:
    """Declare the verbs of `config`."""
    config = commands.noun("config", "check and show the site's settings")
    config.verb("check", check, "report every problem of the settings at once", "cleanroom config check")
    config.verb("show", show, "show every setting, its value and its meaning", "cleanroom config show --format json")


def check(context: Context, _: argparse.Namespace) -> None:
    """Load the settings; the loader raises one InputError that lists all problems."""
    # What reads them takes a while to load, which other commands need not wait for.
    from cleanroom_master.notifications import endpoints

    settings = context.settings
    endpoints.load(settings)
    context.emit(
        {"valid": True, "site": settings.site, "state": settings.state},
        f"the settings are valid (site {settings.site}, state {settings.state})",
    )


def show(context: Context, _: argparse.Namespace) -> None:
    """Show the settings; secrets only as being set or not."""
    values = context.settings.values
    rows = [
        {
            "key": setting.key,
            "value": ("(set)" if values[setting.key] else None) if setting.secret else values[setting.key],
            "variable": setting.variable,
            "meaning": setting.help,
        }
        for setting in SETTINGS
    ]
    context.rows(rows, ["key", "value", "meaning"], "no settings")
