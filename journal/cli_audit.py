"""Commands that copy, prove, sign, repair and clear away.

Rules of this module:

* As in ``cli``. Whatever changes the journal says so in its help and needs an explicit word.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, BinaryIO, cast

import click

from journal.errors import InvalidRecord
from journal.facade import Journal
from journal.position import parse as parse_position
from journal.show import word


@contextmanager
def _whole(path: str) -> Iterator[BinaryIO]:
    """A file to be written that replaces ``path`` when it is complete and on the disk."""
    if path == "-" or (os.path.exists(path) and not os.path.isfile(path)):
        with click.open_file(path, "wb") as out:
            yield cast("BinaryIO", out)
        return
    temporary = f"{path}.part"
    try:
        with open(temporary, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        with suppress(FileNotFoundError):
            os.unlink(temporary)
        raise


def _text(file: BinaryIO) -> str:
    """What a file says, ``InvalidRecord`` if it is no text."""
    try:
        return file.read().decode()
    except UnicodeDecodeError as error:
        raise InvalidRecord(f"{file.name}: neither a proof nor a checkpoint") from error


def commands() -> list[click.Command]:
    """The commands, for ``journal.cli.build``."""

    @click.command()
    @click.option("--apply", is_flag=True, help="Carry the plan out (default: only show it).")
    @click.option("--accept-loss", is_flag=True, help="Replace lost events by a gap.")
    @click.option("--clear-suspect", is_flag=True, help="Allow writing after a failed sync.")
    @click.pass_context
    def repair(ctx: click.Context, apply: bool, accept_loss: bool, clear_suspect: bool) -> None:
        """Restore what proves itself; never in place, a dry run unless --apply."""
        from journal import repair as mending

        if clear_suspect:
            mending.clear_suspect(ctx.obj)
            click.echo("verified; writing is allowed again")
            return
        outcome = mending.repair(ctx.obj, apply=apply, accept_loss=accept_loss)
        for step in outcome.steps:
            click.echo(f"{step.file}: {step.text}")
        if outcome.torn:
            click.echo("torn tail: the next writer cuts it off")
        word = "repaired" if outcome.applied else "would be repaired (nothing was changed)"
        click.echo(f"{len(outcome.steps)} files {word}, {outcome.lost} events lost")
        if outcome.steps and not outcome.applied:
            ctx.exit(2)
        ctx.exit(1 if outcome.torn and not outcome.steps else 0)

    @click.command()
    @click.argument("file", type=click.Path(dir_okay=False, allow_dash=True))
    @click.option("--from", "start", metavar="POSITION", help="Begin after a position.")
    @click.option("--until", type=int, help="End after the frame with this event.")
    @click.pass_obj
    def export(path: str, file: str, start: str | None, until: int | None) -> None:
        """Write a range of frames to FILE; prints the position it ends at."""
        from journal.transfer import export as write

        place = parse_position(start) if start else None
        with Journal.open(path) as journal, _whole(file) as out:
            moved = write(journal, out, place, until_sequence=until)
        click.echo(f"{moved.frames} frames {moved.end.text()}", err=file == "-")

    @click.command("import")
    @click.argument("file", type=click.File("rb"))
    @click.pass_obj
    def import_(path: str, file: Any) -> None:
        """Append an exported range to this replica (created if there is none)."""
        from journal.transfer import load

        moved = load(path, file)
        click.echo(f"{moved.frames} frames {moved.end.text()}")

    @click.command()
    @click.argument("sequence", type=int, required=False)
    @click.option("--consistency", type=int, metavar="SIZE", help="With the log of SIZE frames.")
    @click.option("--checkpoint", type=click.File("rb"), help="With a checkpoint.")
    @click.pass_obj
    def prove(path: str, sequence: int | None, consistency: int | None, checkpoint: Any) -> None:
        """Prove that an event is in the log, or that the log extends an earlier one (JSON)."""
        from journal.audit import prove_consistency, prove_inclusion

        with Journal.open(path) as journal:
            if checkpoint is not None:
                from journal.checkpoint import parse

                consistency = parse(_text(checkpoint)).size
            if consistency is not None:
                proof = prove_consistency(journal, consistency)
            elif sequence is not None:
                proof = prove_inclusion(journal, sequence)
            else:
                raise click.UsageError("name an event's sequence number, or --consistency")
        click.echo(json.dumps(proof))

    @click.command("check-proof")
    @click.argument("file", type=click.File("rb"))
    @click.option("--root", metavar="HEX", help="The root to be trusted.")
    @click.option("--checkpoint", type=click.File("rb"), help="A checkpoint to be trusted.")
    @click.option("--key", help="Verifier key of the checkpoint (name+hash+key).")
    @click.pass_context
    def check_proof(
        ctx: click.Context, file: Any, root: str | None, checkpoint: Any, key: str | None
    ) -> None:
        """Check a proof or a checkpoint; exit 0 if it holds, 2 if not. Needs no journal for
        proofs; a checkpoint (FILE) is compared with the journal."""
        from journal import audit
        from journal import checkpoint as signing

        text = _text(file)
        said = ""
        if not text.lstrip().startswith("{"):
            found = signing.check_signature(text, key) if key else signing.parse(text)
            with Journal.open(ctx.obj) as journal:
                good = signing.check_journal(journal, found)
        else:
            try:
                proof = json.loads(text)
                given = bytes.fromhex(root) if root else None
            except ValueError as error:
                raise InvalidRecord(f"neither a proof nor a root: {error}") from error
            old, sized = None, True
            if checkpoint is not None:
                note = _text(checkpoint)
                trusted = signing.check_signature(note, key) if key else signing.parse(note)
                if proof.get("type") == "consistency":
                    old, sized = trusted.root, proof.get("old_size") == trusted.size
                else:
                    given, sized = trusted.root, proof.get("size") == trusted.size
            good = audit.check_proof(proof, root=given, old_root=old) and sized
            if good and proof["type"] == "inclusion":
                said = f": event {proof['sequence']} is {word(audit.proved_event(proof))}"
        click.echo(f"holds{said}" if good else "DOES NOT HOLD")
        ctx.exit(0 if good else 2)

    @click.command()
    @click.option("--key", "key_path", required=True, type=click.Path(dir_okay=False))
    @click.option("--generate", is_flag=True, help="Make the key first; prints the verifier key.")
    @click.option("--origin", default="", help="Name of the log (default: from its id).")
    @click.pass_obj
    def sign(path: str, key_path: str, generate: bool, origin: str) -> None:
        """Print a signed checkpoint, to be kept elsewhere."""
        from journal import checkpoint

        with Journal.open(path) as journal:
            name = origin or f"journal/{journal.uuid.hex()}"
            if generate:
                checkpoint.generate_key(key_path)
                click.echo(checkpoint.public_key(key_path, name), err=True)
            sys.stdout.write(checkpoint.sign(journal, key_path, name))

    @click.command()
    @click.option(
        "--keep", default=1, show_default=True, type=click.IntRange(0),
        help="Sealed segments to leave.",
    )  # fmt: skip
    @click.pass_obj
    def archive(path: str, keep: int) -> None:
        """Compress sealed segments into the archive folder; they stay readable."""
        from journal.archive import archive as move

        with Journal.open(path, "w") as journal:
            moved = move(journal, keep=keep)
        click.echo(f"{len(moved)} segments archived")

    @click.command()
    @click.option("--before", type=int, help="Only segments that end before this event.")
    @click.pass_obj
    def prune(path: str, before: int | None) -> None:
        """Remove history that two verified snapshots cover."""
        from journal.archive import prune as cut

        with Journal.open(path, "w") as journal:
            gone = cut(journal, before_sequence=before)
        click.echo(f"{len(gone)} segments removed")

    return [repair, export, import_, prove, check_proof, sign, archive, prune]
