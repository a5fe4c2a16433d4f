"""The commands and their options."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Annotated

import typer

from langswarm_session import __version__
from langswarm_session.cli import maintenance, outcome, transfer
from langswarm_session.cli.commands.chat import Wanted
from langswarm_session.cli.commands.chat import chat as hold_chat
from langswarm_session.cli.commands.list_ import list_sessions
from langswarm_session.cli.commands.show import show as show_session
from langswarm_session.cli.location import DEFAULT_DB, JsonFlag, Place
from langswarm_session.cli.outcome import EXIT_CODES, ExitCode, reported
from langswarm_session.cli.output import prepare_streams
from langswarm_session.models import SessionStatus

app = typer.Typer(
    name="langswarm-session",
    help="Hold conversations that are still there the next time, and look at them.",
    epilog=EXIT_CODES,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"langswarm-session {__version__}")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def options(
    context: typer.Context,
    db: Annotated[
        str | None,
        typer.Option(
            metavar="PATH|URL",
            envvar="LANGSWARM_SESSION_DB",
            show_envvar=True,
            help="The SQLite file, or the URL of a database (postgresql://...).",
            show_default=DEFAULT_DB,
        ),
    ] = None,
    storage: Annotated[
        str | None,
        typer.Option(metavar="URL", help="Any storage, such as sqlite:///chat.db or a plug-in's."),
    ] = None,
    version: Annotated[  # noqa: ARG001 - its callback does it all
        bool,
        typer.Option("--version", is_eager=True, callback=_print_version, help="Show the version."),
    ] = False,
) -> None:
    """What goes before the command."""
    given = context.get_parameter_source("db")
    if storage is not None and given is not None and given.name == "ENVIRONMENT":
        db = None
    context.obj = Place(db, storage)
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())
        raise typer.Exit(ExitCode.USAGE)


@app.command(epilog=EXIT_CODES)
def chat(
    context: typer.Context,
    session: Annotated[
        str | None,
        typer.Option(
            metavar="ID", help="The session; it goes on if it exists.", show_default="a new one"
        ),
    ] = None,
    user: Annotated[
        str | None,
        typer.Option(help="Whose session it is.", show_default="of a new one: default"),
    ] = None,
    provider: Annotated[
        str | None,
        typer.Option(help="Who answers.", show_default="in a new one: mock"),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            help="The model. The mock's are recall and echo.", show_default="the mock's: recall"
        ),
    ] = None,
    demo: Annotated[
        bool,
        typer.Option("--demo", help="Say something by itself if standard input is empty."),
    ] = False,
    as_json: JsonFlag = False,
) -> None:
    """Talk. From a pipe: a line is a message, and the replies go to standard output.

    Ctrl-C stops a reply and Ctrl-D ends the chat. From a pipe Ctrl-C ends it
    too, and the exit code is 1 if any message got no reply.
    """
    with reported(as_json=as_json):
        place: Place = context.obj
        manager = place.manager(must_exist=False)
        code = hold_chat(
            manager, Wanted(session, user, provider, model), demo=demo, as_json=as_json
        )
        if code:
            raise typer.Exit(code)


@app.command("list", epilog=EXIT_CODES)
def list_(
    context: typer.Context,
    user: Annotated[str | None, typer.Option(help="Only this user's.")] = None,
    status: Annotated[SessionStatus | None, typer.Option(help="Only with this status.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="How many at most.")] = 100,
    cursor: Annotated[
        str | None, typer.Option(help="Go on where the page before ended (its next_cursor).")
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """List sessions, newest activity first; all users' unless one is named."""
    place: Place = context.obj
    place.run(
        lambda manager: list_sessions(
            manager, user=user, status=status, limit=limit, cursor=cursor, as_json=as_json
        ),
        as_json=as_json,
    )


@app.command(epilog=EXIT_CODES)
def show(
    context: typer.Context,
    session: Annotated[str, typer.Argument(help="The session's id.")],
    limit: Annotated[
        int | None, typer.Option(min=0, help="Only so many of the newest messages.")
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Print a session with its messages."""
    place: Place = context.obj
    place.run(
        lambda manager: show_session(manager, session, limit=limit, as_json=as_json),
        as_json=as_json,
    )


transfer.add_to(app)
maintenance.add_to(app)


def run(arguments: Sequence[str]) -> int:
    """Run the command line; see `langswarm_session.cli.main`."""
    # An error is one line, whatever the package also logs about it.
    logging.getLogger("langswarm_session").addHandler(logging.NullHandler())
    prepare_streams()
    as_json = "--json" in arguments
    try:
        with reported(as_json=as_json):
            return _run(arguments, as_json=as_json)
    except typer.Exit as ended:
        return int(ended.exit_code)
    except typer.Abort:
        return ExitCode.INTERRUPTED
    raise AssertionError("reported() either raises or lets it return")


def _run(arguments: Sequence[str], *, as_json: bool) -> int:
    try:
        code = app(list(arguments), prog_name="langswarm-session", standalone_mode=False)
    except Exception as error:
        # What typer raises for a command line it does not understand has a different name in
        # each of its versions; all have this method.
        describe = getattr(error, "format_message", None)
        if describe is None:
            raise
        message = describe()
        hint = "--help explains the options"
        if message.endswith((" --db", " --storage")):
            hint = "it goes before the command"
        outcome.report(f"{message} ({hint})", "UsageError", ExitCode.USAGE, as_json=as_json)
        return ExitCode.USAGE
    return int(code or 0)
