"""The command line of a journal; an application adds what its events mean.

Rules of this module:

* ``build`` makes a click group. Hooks: how options name the journal, what an event says, how a
  state is built and what the live state's digest is.
* Exit codes: 0 clean, 1 torn tail, 2 corruption (and wrong usage), 3 cannot read, 4 locked,
  130 interrupted.
* Output goes to standard output, one line per event; refusals are one line on standard error.
* Nothing but ``repair --apply``, ``import``, ``snapshot``, ``archive``, ``prune`` and ``sign``
  writes.
"""

from __future__ import annotations

import json
import os
import sys
import traceback
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import click

from journal.errors import JournalError
from journal.facade import Journal
from journal.frame import DATA, Frame
from journal.position import Position
from journal.position import parse as parse_position
from journal.show import Describe, lines, records, word

Resolve = Callable[[dict[str, Any]], str]
Live = Callable[[str], tuple[Position, bytes]]

CLEAN, TORN, CORRUPT, UNREADABLE, LOCKED = 0, 1, 2, 3, 4
INTERRUPTED = 130


class _Group(click.Group):
    """A group whose refusals are one line and the documented exit code."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except (click.ClickException, click.exceptions.Exit):
            raise
        except (KeyboardInterrupt, click.Abort):
            ctx.exit(INTERRUPTED)  # click would say 1, which is a torn tail here
        except JournalError as error:
            click.echo(f"Error: {error}", err=True)
            ctx.exit(error.exit_code)
        except BrokenPipeError:
            sys.stderr.close()
            ctx.exit(CLEAN)
        except OSError as error:
            where = "" if error.filename or not ctx.obj else f"{ctx.obj}: "
            click.echo(
                f"Error: {where}{error.strerror or error}"
                + (f": {error.filename}" if error.filename else ""),
                err=True,
            )
            ctx.exit(UNREADABLE)
        except Exception:  # a defect; uncaught it would end with 1 as well
            traceback.print_exc()
            ctx.exit(UNREADABLE)


def _out(data: Any, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(data))
    else:
        for key, value in data.items():
            text = " ".join(map(str, value)) if isinstance(value, list) else word(value)
            click.echo(f"{key}: {text}")


def build(
    *,
    describe: Describe | None = None,
    reducer: Callable[[], Any] | None = None,
    live: Live | None = None,
    resolve: Resolve | None = None,
    options: Sequence[click.Parameter] = (),
    name: str = "journal",
) -> click.Group:
    """The command group.

    ``options``: parameters of the group, handed to ``resolve`` as a dictionary, which returns the
    journal's folder (default: one option ``--journal PATH``). ``describe(event)`` gives one line
    of text. ``reducer()`` makes an empty state with ``apply(frame)`` and ``digest()``; it may also
    have ``items()`` (sorted byte pairs), ``schema`` and ``reducer_version`` for ``snapshot``.
    ``live(path)`` gives position and digest of the state the application would use.
    """
    if resolve is None:
        options = [
            click.Option(
                ["--journal", "-j"], required=True, envvar="JOURNAL_PATH",
                type=click.Path(file_okay=False), help="The journal's folder.",
            )
        ]  # fmt: skip

    def root(**given: Any) -> None:
        context = click.get_current_context()
        context.obj = resolve(given) if resolve is not None else given["journal"]

    group = _Group(
        name, params=list(options), callback=root,
        help="Look at, prove, follow, repair and copy a journal.",
    )  # fmt: skip
    hooks = _Hooks(describe, reducer, live)
    for command in _commands(hooks):
        group.add_command(command)
    from journal.cli_audit import commands as audit_commands

    for command in audit_commands():
        group.add_command(command)
    return group


class _Hooks:
    def __init__(
        self,
        describe: Describe | None,
        reducer: Callable[[], Any] | None,
        live: Live | None,
    ) -> None:
        self.describe = describe
        self.reducer = reducer
        self.live = live


def _wanted(
    journal: Journal, since: int, until: int | None, start: Position | None
) -> Iterable[Frame]:
    for frame in journal.frames(start):
        if until is not None and frame.first_sequence > until:
            return
        if frame.kind != DATA or frame.last_sequence >= since:
            yield frame


def _print(frame: Frame, hooks: _Hooks, as_json: bool, control: bool) -> None:
    if as_json:
        for record in records(frame, hooks.describe, control):
            click.echo(json.dumps(record))
    else:
        for line in lines(frame, hooks.describe, control):
            click.echo(line)


def _commands(hooks: _Hooks) -> list[click.Command]:
    as_json = click.option("--json", "as_json", is_flag=True, help="JSON, one object per line.")
    control = click.option("--control", is_flag=True, help="Also control frames.")
    position = click.option("--from", "start", metavar="POSITION", help="Resume after a position.")

    @click.command()
    @as_json
    @control
    @position
    @click.option("--since", default=1, show_default=True, help="First sequence number.")
    @click.option("--until", type=int, help="Last sequence number.")
    @click.option("--limit", type=click.IntRange(0), help="Only the newest so many frames.")
    @click.pass_obj
    def log(
        path: str,
        as_json: bool,
        control: bool,
        start: str | None,
        since: int,
        until: int | None,
        limit: int | None,
    ) -> None:
        """Events, one line each: sequence, time, actor, reason, event."""
        with Journal.open(path) as journal:
            place = parse_position(start) if start else None
            frames = _wanted(journal, since, until, place)
            if limit is not None:
                from collections import deque

                frames = deque((f for f in frames if control or f.kind == DATA), maxlen=limit)
            for frame in frames:
                _print(frame, hooks, as_json, control)

    @click.command()
    @as_json
    @control
    @position
    @click.option("--follow", "-f", is_flag=True, help="Wait for more.")
    @click.option(
        "--lines", "-n", "count", default=10, show_default=True, type=click.IntRange(0),
        help="Frames first.",
    )  # fmt: skip
    @click.option("--durable", is_flag=True, help="Only what is known to be on the disk.")
    @click.option("--timeout", type=float, help="End after so many seconds without anything new.")
    @click.pass_obj
    def tail(
        path: str,
        as_json: bool,
        control: bool,
        start: str | None,
        follow: bool,
        count: int,
        durable: bool,
        timeout: float | None,
    ) -> None:
        """The newest events, and with --follow those to come."""
        from collections import deque

        with Journal.open(path) as journal:
            place = parse_position(start) if start else None
            if place is None:
                newest: deque[Frame] = deque(maxlen=max(1, count))
                with journal.reader(durable=durable) as reader:
                    for frame in reader.read_new():
                        if control or frame.kind == DATA:
                            newest.append(frame)
                    place = reader.position
                for frame in newest if count else ():
                    _print(frame, hooks, as_json, control)
            if not follow and start is None:
                return
            with journal.watch(place, durable=durable) as watcher:
                for frame in watcher.follow(timeout if follow else 0.0):
                    _print(frame, hooks, as_json, control)
                    sys.stdout.flush()

    @click.command()
    @as_json
    @click.option("--quick", "level", flag_value="quick", help="Headers, seals and the tail.")
    @click.option("--full", "level", flag_value="full", default=True, help="Every frame (default).")
    @click.option("--strict", "level", flag_value="strict", help="Also every body, and the tree.")
    @click.option("--replay", "level", flag_value="replay", help="Also the states in snapshots.")
    @click.pass_context
    def verify(ctx: click.Context, as_json: bool, level: str) -> None:
        """Prove the journal; exit 0 clean, 1 torn tail, 2 corruption."""
        from journal.verify import verify as prove

        report = prove(ctx.obj, level, reducer=hooks.reducer, processes=os.cpu_count() or 1)
        if as_json:
            data = report._asdict() | {
                "verdict": report.verdict,
                "position": report.position.text() if report.position else None,
                "tree_root": report.tree_root.hex(),
                "digest": report.digest.hex(),
                "findings": [finding._asdict() for finding in report.findings],
            }
            click.echo(json.dumps(data))
        else:
            for finding in report.findings:
                where = f"segment {finding.segment} offset {finding.offset}: "
                click.echo(
                    f"{finding.weight}: {where if finding.segment else ''}{finding.text} "
                    f"({finding.rule})"
                )
            click.echo(
                f"{report.verdict}: {report.segments} segments, {report.frames} frames, "
                f"{report.events} events, {report.size} bytes, "
                f"{report.snapshots} snapshots ({level})"
            )
        ctx.exit(report.exit_code)

    @click.command()
    @as_json
    @click.pass_context
    def replay(ctx: click.Context, as_json: bool) -> None:
        """Rebuild the state from nothing and compare it with the live state and the snapshots."""
        from journal.verify import verify as prove

        report = prove(ctx.obj, "replay", reducer=hooks.reducer)
        result: dict[str, Any] = {
            "events": report.events,
            "digest": report.digest.hex(),
            "snapshots": report.snapshots,
            "verdict": report.verdict,
        }
        code = report.exit_code
        for finding in report.findings:
            if finding.weight != "notice":
                click.echo(f"{finding.weight}: {finding.text} ({finding.rule})", err=True)
            elif finding.rule == "replay":
                raise JournalError(finding.text)
        if hooks.live is not None and hooks.reducer is not None and code != CORRUPT:
            place, digest = hooks.live(ctx.obj)
            again = _digest_at(ctx.obj, hooks.reducer, place)
            result["live_digest"] = digest.hex()
            result["live_sequence"] = place.sequence
            result["match"] = again == digest
            if again != digest:
                click.echo(
                    f"damage: replay up to sequence {place.sequence} gives {again.hex()}, "
                    f"the live state has {digest.hex()}", err=True,
                )  # fmt: skip
                code = CORRUPT
        _out(result, as_json)
        ctx.exit(code)

    @click.command()
    @as_json
    @click.pass_obj
    def stat(path: str, as_json: bool) -> None:
        """Identity, size, position, snapshots."""
        from journal.stat import stat as numbers

        with Journal.open(path) as journal:
            _out(numbers(journal), as_json)

    @click.command()
    @click.option(
        "--keep", default=2, show_default=True, type=click.IntRange(1), help="Snapshots to keep."
    )
    @click.pass_context
    def snapshot(ctx: click.Context, keep: int) -> None:
        """Write a snapshot of the present state and remove old ones."""
        if hooks.reducer is None:
            raise JournalError("this program does not know how to build the state")
        with Journal.open(ctx.obj, "w") as journal:
            state = hooks.reducer()
            with journal.reader() as reader:
                for frame in reader.read_new():
                    state.apply(frame)
                place = reader.position
            said = journal.snapshots.write(
                state.items(), position=place, schema=getattr(state, "schema", 1),
                reducer_version=getattr(state, "reducer_version", 1), digest=state.digest(),
            )  # fmt: skip
            journal.snapshots.maintain(keep)
        click.echo(f"{said.count} records at sequence {said.position.sequence}, {said.size} bytes")

    return [log, tail, verify, replay, stat, snapshot]


def _digest_at(path: str, reducer: Callable[[], Any], place: Position) -> bytes:
    """The digest of the state replayed up to ``place``."""
    state = reducer()
    with Journal.open(path) as journal:
        for frame in journal.frames():
            if frame.position[:2] >= place[:2]:
                break
            state.apply(frame)
    return bytes(state.digest())


def main() -> None:
    """The stand-alone command (``python -m journal``)."""
    build()()
