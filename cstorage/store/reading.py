"""A state that follows a journal: snapshot, then every frame since, without any lock."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import journal as journal_api
from cstorage import events as ev
from cstorage.errors import OutcomeUnknown, StorageError, StoreBusy, StoreDamaged, StoreIsReadOnly
from cstorage.events import codec
from cstorage.state import State, values
from cstorage.state.reducer import apply
from journal.frame import DATA

if TYPE_CHECKING:
    from journal import Frame, Journal


@contextmanager
def translated() -> Iterator[None]:
    """Journal errors as errors of the store, with what to do about them."""
    try:
        yield
    except journal_api.LockTimeout as error:
        raise StoreBusy(str(error)) from error
    except journal_api.JournalReadOnly as error:
        raise StoreIsReadOnly(str(error)) from error
    except journal_api.JournalDamaged as error:
        raise StoreDamaged(f"{error}; run `cstorage-journal verify`") from error
    except journal_api.WriterPoisoned as error:
        raise OutcomeUnknown(str(error)) from error
    except journal_api.JournalError as error:
        raise StorageError(str(error)) from error


class Replica:
    """The state of one journal as of the last ``catch_up``. Not safe for several threads."""

    def __init__(self, journal: Journal, folder: Path) -> None:
        self.journal = journal
        self.folder = folder
        self.load()

    def load(self) -> None:
        """Begin again from the newest snapshot."""
        with translated():
            snapshot = None
            if (self.folder / "snapshots").is_dir():
                snapshot = self.journal.snapshots.open_trusted(
                    schema=ev.SCHEMA, reducer_version=values.REDUCER_VERSION
                )
            self.state = State(snapshot)
            self.reader = self.journal.reader(snapshot.position if snapshot else None)

    @property
    def position(self) -> journal_api.Position:
        return self.reader.position

    def catch_up(self) -> None:
        """Apply what was committed since; costs one ``fstat`` when that is nothing."""
        with translated():
            if not self.reader.changed():
                return
            for frame in self.reader.read_new():
                self._apply(frame)

    def _apply(self, frame: Frame) -> None:
        if frame.kind != DATA:
            return
        sequence = frame.first_sequence
        for raw in frame.transaction().events:
            apply(self.state, codec.decode(raw), sequence)
            sequence += 1
