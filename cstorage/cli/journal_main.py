"""``cstorage-journal``: the journal library's command line, knowing what a store's events mean.

The options that find the journal (``--graph``, ``--storage-driver``, ``--journal``) may stand
before or after the command.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

from journal.plain import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import click

    from cstorage.state import State
    from journal import Frame, Position

_PLACE_OPTIONS = ("--graph", "-g", "--storage-driver", "-s", "--journal")


class StoreReducer:
    """A state built from nothing by every event, for ``replay`` and ``snapshot``."""

    def __init__(self) -> None:
        from cstorage import events
        from cstorage.state import State, values

        self.schema = events.SCHEMA
        self.reducer_version = values.REDUCER_VERSION
        self.state: State = State()

    def apply(self, frame: Frame) -> None:
        """Take one frame's events; control frames change nothing."""
        from cstorage.store.reading import apply_frame

        apply_frame(self.state, frame)

    def digest(self) -> bytes:
        return self.state.digest()

    def items(self) -> Iterator[tuple[bytes, bytes]]:
        return self.state.entries()


def live_state(path: str) -> tuple[Position, bytes]:
    """Position and digest of the state as the store would open it: snapshot and tail."""
    from cstorage import events
    from cstorage.state import State, values
    from journal import Journal

    with Journal.open(path) as journal:
        snapshot = journal.snapshots.open_trusted(
            schema=events.SCHEMA, reducer_version=values.REDUCER_VERSION
        )
        reducer = StoreReducer()
        reducer.state = State(snapshot)
        reader = journal.reader(snapshot.position if snapshot else None)
        for frame in reader.read_new():
            reducer.apply(frame)
        return reader.position, reducer.digest()


def describe(raw: list[Any]) -> str:
    """One line that says what happened."""
    from cstorage.events import codec

    return codec.describe(codec.decode(raw))


def folder(given: dict[str, Any]) -> str:
    """The journal that the options name: ``--journal``, else that of the graph root's store."""
    if given.get("journal"):
        return str(given["journal"])
    from cstorage.store.opening import journal_folder

    root, driver = given.get("graph"), given.get("storage_driver") or ""
    if not root:
        from cstorage.config import load

        options = load()
        root, driver = options.graph_root, driver or options.driver
    graph = Path(root).absolute()
    return str(journal_folder(graph, driver) if driver else graph / "journal")


def group() -> click.Group:
    """The click group of the command."""
    import click

    from journal.cli import build

    return build(
        name="cstorage-journal",
        describe=describe,
        reducer=StoreReducer,
        live=live_state,
        resolve=folder,
        options=[
            click.Option(["-g", "--graph"], metavar="DIR", help="Graph root of the store."),
            click.Option(["-s", "--storage-driver"], metavar="NAME", help="Driver of the store."),
            click.Option(["--journal"], metavar="DIR", help="The journal's own folder."),
        ],
    )


def hoist(words: list[str]) -> list[str]:
    """``words`` with the options that find the journal moved before the command."""
    front: list[str] = []
    rest: list[str] = []
    index = 0
    while index < len(words):
        word = words[index]
        if word == "--":
            rest += words[index:]
            break
        if word in _PLACE_OPTIONS and index + 1 < len(words):
            front += words[index : index + 2]
            index += 1
        elif word.startswith(tuple(f"{o}=" for o in _PLACE_OPTIONS if o.startswith("--"))):
            front.append(word)
        else:
            rest.append(word)
        index += 1
    return front + rest


def main() -> None:
    """Entry point of ``cstorage-journal``."""
    from cstorage.errors import StorageError

    try:
        group().main(args=hoist(sys.argv[1:]), prog_name="cstorage-journal")
    except StorageError as error:
        print(f"Error: {error}", file=sys.stderr)
        sys.exit(3)


if __name__ == "__main__":
    main()
