"""The commands for whoever looks after a database: doctor, cleanup, erase, stats."""

from __future__ import annotations

from typing import Annotated

import typer

from langswarm_session.cli.commands.cleanup import Wish
from langswarm_session.cli.commands.cleanup import cleanup as clean_up
from langswarm_session.cli.commands.cleanup import question as about_deleting
from langswarm_session.cli.commands.doctor import doctor as examine
from langswarm_session.cli.commands.erase import erase as erase_user
from langswarm_session.cli.commands.erase import question as about_erasing
from langswarm_session.cli.commands.stats import stats as print_stats
from langswarm_session.cli.confirm import ask
from langswarm_session.cli.location import JsonFlag, Place
from langswarm_session.cli.outcome import EXIT_CODES, ExitCode

YesFlag = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]


def add_to(app: typer.Typer) -> None:
    """Add the commands."""
    for command in (doctor, cleanup, erase, stats):
        app.command(epilog=EXIT_CODES)(command)


def _end(code: ExitCode) -> None:
    if code is not ExitCode.OK:
        raise typer.Exit(code)


def doctor(
    context: typer.Context,
    full: Annotated[
        bool, typer.Option("--full", help="Read every message and check every index as well.")
    ] = False,
    timeout: Annotated[
        float, typer.Option("--timeout", min=0.001, help="How many seconds it may take at most.")
    ] = 300.0,
    as_json: JsonFlag = False,
) -> None:
    """Look for what is wrong with the database, and say what to do about it.

    Also shows what is installed, and which keys are set (never the keys).
    Nothing is written. The exit code is 1 if there is a problem; warnings
    are none.
    """
    place: Place = context.obj
    _end(
        place.run(
            lambda manager: examine(manager, full=full, seconds=timeout, as_json=as_json),
            as_json=as_json,
            must_exist=False,
        )
    )


def cleanup(
    context: typer.Context,
    hours: Annotated[
        float,
        typer.Option(
            "--inactive-hours", metavar="N", min=0, help="Unused for so many hours, at least."
        ),
    ] = 24,
    delete: Annotated[
        bool,
        typer.Option(
            "--delete",
            help="Delete them for good, archived ones too, and what providers keep of them.",
        ),
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show which.")] = False,
    yes: YesFlag = False,
    as_json: JsonFlag = False,
) -> None:
    """Archive the active sessions that nobody has written to for a while.

    Sessions with auto_archive=False in their context are left alone; so are,
    with --delete, those in which a turn is running.
    """
    place: Place = context.obj
    wish = Wish(hours, delete, dry_run)
    if delete and not (dry_run or yes):
        ask(place, lambda manager: about_deleting(manager, wish), as_json=as_json)
    _end(place.run(lambda manager: clean_up(manager, wish, as_json=as_json), as_json=as_json))


def erase(
    context: typer.Context,
    user: Annotated[str, typer.Option(help="Whose data.")],
    yes: YesFlag = False,
    local_only: Annotated[
        bool,
        typer.Option("--local-only", help="Leave what providers keep; it is listed as left."),
    ] = False,
    no_scrub: Annotated[
        bool,
        typer.Option(
            "--no-scrub",
            help="Do not rewrite the SQLite file: quick, and traces may be left in it.",
        ),
    ] = False,
    as_json: JsonFlag = False,
) -> None:
    """Erase everything of a person: the sessions here and their copies at providers.

    What was deleted is overwritten too; a SQLite file is written anew for
    that. Backups, and the logs of a database server, are not touched. The
    exit code is 1 if anything is left.
    """
    place: Place = context.obj
    if not yes:
        ask(place, lambda manager: about_erasing(manager, user), as_json=as_json)
    _end(
        place.run(
            lambda manager: erase_user(
                manager,
                user,
                at_providers=not local_only,
                scrub=not no_scrub,
                as_json=as_json,
            ),
            as_json=as_json,
        )
    )


def stats(
    context: typer.Context,
    user: Annotated[str | None, typer.Option(help="Only this user's sessions.")] = None,
    top: Annotated[int, typer.Option(min=0, help="How many users are shown.")] = 20,
    as_json: JsonFlag = False,
) -> None:
    """Add up sessions, messages, turns and tokens, by model and by user.

    A session counts for the model that it has now, whichever answered before.
    """
    place: Place = context.obj
    _end(
        place.run(
            lambda manager: print_stats(manager, user=user, top=top, as_json=as_json),
            as_json=as_json,
        )
    )
