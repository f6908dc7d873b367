"""T11: planted bugs. Each replaces a few lines of the journal's source and must be caught by one of
the tiers named with it; a bug that no tier sees is a hole in the programme."""

# ruff: noqa: E501 - the planted bugs quote source lines as they are

from __future__ import annotations

import importlib.abc
import importlib.machinery
import importlib.util
import sys
from pathlib import Path
from typing import Any, NamedTuple

PACKAGE = Path(__file__).parents[3] / "journal"


class Mutant(NamedTuple):
    name: str
    module: str
    old: str
    new: str
    tiers: tuple[str, ...]


MUTANTS = (
    Mutant("no fdatasync", "tail",
           "            self.fs.fdatasync(self.fd)\n        except OSError as error:\n            self.die",
           "            pass\n        except OSError as error:\n            self.die", ("T2", "T6")),
    Mutant("acknowledge before the sync", "tail",
           "                self.sync(ends[whole - 1])\n            if whole < len(ends):",
           "                self.synced and cursor.offset - self.synced > 200 and"
           " self.sync(cursor.position)\n            if whole < len(ends):", ("T2",)),
    Mutant("no directory sync", "fs", "    fs.rename(temporary, f\"{directory}/{name}\")\n"
           "    fs.sync_directory(directory)", "    fs.rename(temporary, f\"{directory}/{name}\")",
           ("T2",)),
    Mutant("sync after the rename", "fs",
           "        write_all(fs, fd, data, 0)\n        fs.fdatasync(fd)\n    finally:\n"
           "        fs.close(fd)\n    fs.rename(temporary, f\"{directory}/{name}\")\n"
           "    fs.sync_directory(directory)",
           "        write_all(fs, fd, data, 0)\n"
           "        fs.rename(temporary, f\"{directory}/{name}\")\n"
           "        fs.sync_directory(directory)\n        fs.fdatasync(fd)\n    finally:\n"
           "        fs.close(fd)", ("T2",)),
    Mutant("retry a failed sync", "tail",
           "            self.fs.fdatasync(self.fd)\n        except OSError as error:\n            self.die(error)",
           "            self.fs.fdatasync(self.fd)\n        except OSError as error:\n"
           "            return self.sync(place)\n            self.die(error)", ("T6",)),
    Mutant("a dead writer goes on", "tail",
           "        self.poison = error\n", "        pass\n", ("T6",)),
    Mutant("no SUSPECT marker", "tail",
           "layout.leave_suspect(self.fs, self.root, str(error))", "pass", ("T6",)),
    Mutant("no sync when adopting", "adoption",
           "    else:\n        tail.sync(cursor.position)\n    tail.acked",
           "    else:\n        tail.synced = cursor.offset\n    tail.acked", ("T2",)),
    Mutant("take a close frame as durable", "adoption", "tail.synced = cursor.last_promise",
           "tail.synced = cursor.offset", ("T2",)),
    Mutant("promise the frame itself", "tail", "promise=promise, time_ns", "promise=at, time_ns",
           ("T2", "T1")),
    Mutant("rotate without syncing the seal", "rotation",
           "    tail.surely([Request(fr.SEAL, body, 0)])  # R1\n",
           '    durability, tail.durability = tail.durability, "none"\n'
           "    tail.write([Request(fr.SEAL, body, 0)])\n    tail.durability = durability\n",
           ("T2", "T9")),
    Mutant("cut at damage inside the log", "recovery", "(PROMISED,), KNOWNS, REFUSE", "(PROMISED,), KNOWNS, TRUNCATE",
           ("T1",)),
    Mutant("ignore the promises", "observe", "found.promised > cursor.offset", "found.promised < 0",
           ("T1",)),
    Mutant("ignore what is known to be durable", "observe",
           "known = recovery.YES if beyond else recovery.NO",
           "known = recovery.NO", ("T1",)),
    Mutant("trust the header length only", "frame",
           "if again != length or extend(extend(here, content), stored) != body_crc:",
           "if False:", ("T1",)),
    Mutant("no header checksum", "frame",
           "            or extend(here, buffer[position + 8 : body_at]) != crc\n",
           "", ("T1",)),
    Mutant("no chain", "frame",
           "hasher(chain + content).digest() != stored", "False", ("T1",)),
    Mutant("no sequence check", "frame", "            first != following\n            or (", "            (",
           ("T1",)),
    Mutant("links outside the body checksum", "frame",
           "extend(extend(here, content), link)\0extend(extend(crc, body), link)\0"
           "extend(extend(here, content), stored)",
           "extend(here, content)\0extend(crc, body)\0extend(here, content)", ("T1",)),
    Mutant("trust a snapshot by its name", "snapshots", "            self._find_reference(name, said)\n", "",
           ("T7",)),
    Mutant("name a snapshot before it is synced", "snapshot_writer", "        fs.fdatasync(fd)\n", "",
           ("T2",)),
    Mutant("no checksums in snapshots", "snapshot",
           '!= int.from_bytes(data[:4], "little")\0(0, data[4:end]) == checksum',
           '!= int.from_bytes(data[:4], "little") and False\0(0, data[4:end]) == checksum or True',
           ("T7",)),
    Mutant("lockf instead of flock", "fs", "flock = staticmethod(fcntl.flock)",
           "flock = staticmethod(lambda fd, op: fcntl.lockf(fd, op))", ("T3",)),
    Mutant("no lock", "fs", "flock = staticmethod(fcntl.flock)", "flock = staticmethod(lambda fd, op: None)",
           ("T3",)),
    Mutant("leave half a frame behind", "tail",
           "            self.fs.ftruncate(self.fd, offset)\n            self.fs.fdatasync(self.fd)\n        except",
           "            pass\n        except", ("T8",)),
    Mutant("take a transaction twice", "writer", "                if known:\n", "                if False:\n",
           ("T8",)),
    Mutant("ignore expected", "writer", "request.expected is not None and request.expected != sequence",
           "False", ("T8",)),
    Mutant("acknowledge followers of a failed group", "writer",
           "                    request.error = failure\n", "                    request.result = __import__(\"journal.request\").request.Committed(1, 1, self.tail)\n",
           ("T8",)),
    Mutant("durable readers see everything", "reader", "if not self.durable else self._durable_count()",
           "", ("T8",)),
    Mutant("durability mark before the sync", "tail",
           "        try:\n            self.fs.fdatasync(self.fd)\n        except OSError as error:\n            self.die",
           "        self.mark.store(place.segment, place.offset, place.sequence, self.epoch)\n"
           "        try:\n            self.fs.fdatasync(self.fd)\n        except OSError as error:\n            self.die",
           ("T8", "T2")),
    Mutant("prune below the newest snapshot", "archive", "limit = sorted(good, reverse=True)[1]",
           "limit = sorted(good, reverse=True)[0]", ("T8",)),
    Mutant("prune without a prune frame", "archive",
           "            _record(journal, held.control, going[-1])\n", "", ("T8",)),
    Mutant("prune the newest first", "archive", "            for number in going:\n",
           "            for number in reversed(going):\n", ("T8",)),
    Mutant("no heartbeat", "watcher", "limit = min(timeout_s, self.heartbeat_s)", "limit = 3600.0",
           ("T10",)),
    Mutant("write after the seal", "writer",
           "            if log.cursor is None or log.cursor.sealed:\n                return  # nothing may follow a seal\n",
           "", ("T9", "T2")),
    Mutant("reuse the journal after a fork", "facade", "os.register_at_fork(after_in_child=_after_fork)", "",
           ("T3",)),
    Mutant("a row too many", "recovery", '(LAST,), (SHORT, ZEROS), (NOTHING,), (NO,), TRUNCATE',
           '(LAST,), (SHORT, ZEROS, HEADER), (NOTHING,), (NO,), TRUNCATE', ("T7",)),
)  # fmt: skip


class _Loader(importlib.machinery.SourceFileLoader):
    mutant: Mutant

    def get_code(self, fullname: str) -> Any:
        source = Path(self.path).read_text()
        pairs = zip(self.mutant.old.split("\0"), self.mutant.new.split("\0"), strict=True)
        for old, new in pairs:
            if old not in source:
                raise SystemExit(f"the mutant {self.mutant.name!r} does not fit the source")
            source = source.replace(old, new)
        return compile(source, self.path, "exec")


class _Finder(importlib.abc.MetaPathFinder):
    def __init__(self, mutant: Mutant) -> None:
        self.mutant = mutant

    def find_spec(self, fullname: str, path: Any, target: Any = None) -> Any:
        if fullname != f"journal.{self.mutant.module}":
            return None
        loader = _Loader(fullname, str(PACKAGE / f"{self.mutant.module}.py"))
        loader.mutant = self.mutant
        return importlib.util.spec_from_file_location(fullname, loader.path, loader=loader)


def plant(name: str) -> Mutant:
    """Make the next import of the journal get the bug; before anything of it is imported."""
    assert "journal" not in sys.modules
    mutant = next(m for m in MUTANTS if m.name == name)
    sys.meta_path.insert(0, _Finder(mutant))
    return mutant
