"""The commands that take messages out and bring them in: search, export, import."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from langswarm_session.cli.commands.export import Chosen
from langswarm_session.cli.commands.export import export as export_sessions
from langswarm_session.cli.commands.import_ import import_ as import_file
from langswarm_session.cli.commands.search import search as search_messages
from langswarm_session.cli.location import JsonFlag, Place
from langswarm_session.cli.outcome import EXIT_CODES, ExitCode
from langswarm_session.manager import SessionManager
from langswarm_session.models import MessageRole
from langswarm_session.transfer.export_formats import ExportFormat
from langswarm_session.transfer.importing import ImportOptions, OnConflict


def add_to(app: typer.Typer) -> None:
    """Add the commands."""
    app.command(epilog=EXIT_CODES)(search)
    app.command(epilog=EXIT_CODES)(export)
    app.command("import", epilog=EXIT_CODES)(import_)


def search(
    context: typer.Context,
    text: Annotated[str, typer.Argument(help="Any part of a message; the case does not matter.")],
    user: Annotated[str | None, typer.Option(help="Only in this user's sessions.")] = None,
    session: Annotated[str | None, typer.Option(metavar="ID", help="Only in this session.")] = None,
    role: Annotated[MessageRole | None, typer.Option(help="Only what this role said.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="How many at most.")] = 50,
    cursor: Annotated[
        str | None, typer.Option(help="Go on where the page before ended (its next_cursor).")
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Find messages by their text, newest first.

    Tool calls, their results and reasoning are searched too. There is no
    index: every message is looked at.
    """
    place: Place = context.obj
    place.run(
        lambda manager: search_messages(
            manager,
            text,
            user=user,
            session=session,
            role=role,
            limit=limit,
            cursor=cursor,
            as_json=as_json,
        ),
        as_json=as_json,
    )


def export(
    context: typer.Context,
    sessions: Annotated[list[str] | None, typer.Argument(metavar="[SESSION]...")] = None,
    user: Annotated[str | None, typer.Option(help="All of this user's.")] = None,
    everything: Annotated[bool, typer.Option("--all", help="All there are.")] = False,
    form: Annotated[
        ExportFormat,
        typer.Option(
            "--format",
            help="jsonl and json hold everything and can be imported again; openai is the chat "
            "format, a conversation a line; markdown and html are to be read.",
        ),
    ] = ExportFormat.JSONL,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE",
            dir_okay=False,
            help="Write here. The file is there when all of it is.",
            show_default="standard output",
        ),
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Write sessions, whole, as they are read: for logs larger than memory.

    An export holds what was said and the ids of copies at providers, and no
    keys. With --json what is said about it is JSON as well.
    """
    place: Place = context.obj
    place.run(
        lambda manager: export_sessions(
            manager,
            Chosen(sessions or (), user, everything),
            form=form,
            output=output,
            as_json=as_json,
        ),
        as_json=as_json,
    )


def import_(
    context: typer.Context,
    file: Annotated[str, typer.Argument(help="What to import; - is standard input.")],
    user: Annotated[
        str | None,
        typer.Option(help="Whose they become.", show_default="whose they were, or: default"),
    ] = None,
    session: Annotated[
        str | None,
        typer.Option("--as", metavar="ID", help="The id of the one session that is in it."),
    ] = None,
    on_conflict: Annotated[
        OnConflict, typer.Option(help="What to do about a session whose id is taken.")
    ] = OnConflict.FAIL,
    provider: Annotated[
        str, typer.Option(help="Who answers in conversations whose format does not say so.")
    ] = "none",
    model: Annotated[str, typer.Option(help="With which model.")] = "none",
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check all of it and store nothing.")
    ] = False,
    trusted: Annotated[
        bool,
        typer.Option(
            "--trusted",
            help="It is a backup of your own: keep providers' conversations and local paths.",
        ),
    ] = False,
    as_json: JsonFlag = False,
) -> None:
    """Bring sessions back from an export (jsonl or json), or bring them from elsewhere.

    Also takes conversations in OpenAI's chat format, a JSON object a line
    ({"id": ..., "messages": [...]}), and messages of OpenAI threads as the
    Assistants API listed them. All of the file is looked at before any of it
    is stored, and each session is stored whole. After an interruption
    --on-conflict skip goes on.
    """
    place: Place = context.obj

    async def work(manager: SessionManager) -> ExitCode:
        options = ImportOptions(user, session, on_conflict, dry_run, provider, model, trusted)
        return await import_file(manager, file, options, as_json=as_json)

    code = place.run(work, as_json=as_json, must_exist=False)
    if code is not ExitCode.OK:
        raise typer.Exit(code)
