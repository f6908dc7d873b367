"""The view that containers/storage's tools read: their JSON files, written from our state.

Layer trees need no view: the drivers keep them as the original does. The view is everything around
them, below the graph root (drivers-and-formats §1.2, §2.2):

    <driver>-layers/layers.json  layers.lock  <id>.tar-split.gz  <id>/<big data>
    <driver>-images/images.json  images.lock  <id>/<big data>
    <driver>-containers/…                                        own-root form only
    projection/<driver>.mark  <driver>.lock                      ours, not part of the view

Rules:

* Derived: state decides every byte, so deleting the view and projecting again gives the same files.
  Files are copies (sharing extents where the file system can), never hard links: whatever happens
  to the view, content stays whole.
* A record is one line. A refresh replaces the lines of what changed and leaves the others as they
  are. One array per file is all the format offers, so each refresh still copies the bytes of a
  file that changed; nothing is parsed or encoded again.
* New files first, then the JSON under the original's locks, all groups at once, then removals. The
  change token is our journal's ID and the sum of the hashes of all lines: equal for equal records.
* A token that is not ours means somebody else wrote: ``ViewChanged``, nothing is touched. Other
  differences are damage: they are written over and reported.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager

from cstorage import events as ev
from cstorage.errors import ViewChanged
from cstorage.interop import copies, jsonform, locks, marks, selection
from cstorage.interop.filenames import big_data_file
from cstorage.interop.marks import Mark, Place
from cstorage.interop.selection import FILES, GROUP, Form, Verdict
from cstorage.model import Container, Image, Item, Kind, Layer
from cstorage.state import keys
from journal.plain import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from cstorage.state import State
    from journal.position import Position

_SUM_BYTES = 48
_ZERO = bytes(16)


class Outcome(NamedTuple):
    """What a refresh did."""

    sequence: int
    whole: bool
    """Whether all records were looked at, not only those that events named."""
    written: int
    """Records written or replaced."""
    removed: int
    files: int
    """Tar-split and big-data files copied."""
    repaired: tuple[str, ...]
    """Paths that were not as the last refresh had left them."""
    left_out: tuple[tuple[str, str], ...]
    """What is not shown, and why."""


@contextmanager
def held(place: Place) -> Iterator[Projection]:
    """The view, with no other refresh of it running anywhere."""
    os.makedirs(place.own_folder, mode=0o700, exist_ok=True)
    path = f"{place.own_folder}/{place.driver}.lock"
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield Projection(place, marks.read(place))
    finally:
        os.close(fd)


def _identity(path: str) -> list[int]:
    try:
        info = os.lstat(path)
    except FileNotFoundError:
        return []
    return [info.st_ino, info.st_size, info.st_mtime_ns, info.st_ctime_ns]


def _number(record: bytes) -> int:
    return int.from_bytes(hashlib.sha384(record).digest(), "big")


class _Draft(NamedTuple):
    """A file of records that is about to replace the one that had identity ``before``."""

    path: str
    before: list[int]


class Projection:
    """One view, locked against other refreshes. Made by ``held``."""

    def __init__(self, place: Place, mark: Mark | None, timeout_s: float = 10.0) -> None:
        self.place = place
        self.mark = mark
        self.timeout_s = timeout_s
        self._copied: list[str] = []
        self._repaired: list[str] = []
        self._cache: dict[str, bytes] = {}

    # -- whole -----------------------------------------------------------------------------------

    def rebuild(
        self,
        state: State,
        position: Position,
        *,
        form: Form = Form.ADDITIONAL,
        keep: bool = False,
        grace_s: int = 0,
        overwrite: bool = False,
        verify: bool = False,
    ) -> Outcome:
        """Make the whole view from ``state``, which is that of ``position``.

        ``overwrite`` allows to replace what other programs wrote, ``verify`` reads every copy
        instead of trusting size and time. Raises ``ViewChanged``, ``StoreBusy``, ``OSError``.
        """
        current = (
            self.mark is not None and self.mark.position == position and self.mark.form is form
        )
        records: dict[str, list[bytes]] = {file: [] for file in FILES[form]}
        left_out: dict[str, str] = {}
        shown: dict[Kind, set[str]] = {kind: set() for kind in Kind}
        sound: dict[str, str] = {}
        for kind in Kind:
            for id_ in state.ids(kind):
                item = _item(state, kind, id_)
                if item is None:
                    continue
                verdict = _verdict(state, item, form, sound)
                if verdict.file:
                    records[verdict.file].append(_record(item))
                    shown[kind].add(id_)
                elif verdict.why:
                    left_out[f"{kind.name.lower()} {id_}"] = verdict.why
        self._make_folders(form)
        self._check_foreign(records, overwrite)
        for kind, ids in shown.items():
            for id_ in ids:
                item = _item(state, kind, id_)
                assert item is not None
                self._lay(item, verify=verify, damage=current)
        if self._copied:
            self._sync()
        drafts: dict[str, _Draft] = {}
        sums = {file: sum(map(_number, lines)) for file, lines in records.items()}
        for file, lines in records.items():
            data = jsonform.joined(lines)
            before = _identity(self.place.json(file))
            if self._read(file) != data:
                if current:
                    self._repaired.append(self.place.json(file))
                drafts[file] = self._draft(file, [memoryview(data)], before)
        self._publish(drafts, sums, dict.fromkeys(GROUP[file] for file in records), overwrite)
        removed = self._remove_strangers(shown, form, damage=current)
        if form is Form.OWN_ROOT:
            self._own_root_extras()
        self._write_mark(
            Mark(
                form,
                keep,
                grace_s,
                position,
                {file: _identity(self.place.json(file)) for file in records},
                sums,
                left_out,
            )
        )
        return self._outcome(
            position, True, sum(len(records[f]) for f in drafts), removed, left_out
        )

    # -- incremental -----------------------------------------------------------------------------

    def usable(self) -> bool:
        """Whether the view is as the last refresh left it, so that changes can be put into it."""
        mark = self.mark
        if mark is None or set(mark.files) != set(FILES[mark.form]):
            return False
        return all(
            found and _identity(self.place.json(file)) == found
            for file, found in mark.files.items()
        ) and all(
            locks.token(self.place.lock(group)) == self._token(group, mark.sums)
            for group in {GROUP[file] for file in mark.files}
        )

    def update(
        self, state: State, position: Position, events: Iterable[tuple[int, ev.Event]]
    ) -> Outcome | None:
        """Bring the view from its mark to ``position`` by the events in between.

        ``None`` if it cannot be done (the view is not ``usable``, an item moves to another place in
        the order): then ``rebuild`` is due. Raises ``StoreBusy``, ``OSError``.
        """
        mark = self.mark
        if mark is None or not self.usable():
            return None
        if mark.position == position:
            return self._outcome(position, False, 0, 0, mark.left_out)
        touched = _Touched(self)
        for _, event in events:
            touched.see(state, event)
        left_out = dict(mark.left_out)
        changes: dict[str, dict[str, bytes]] = {file: {} for file in mark.files}
        added: dict[str, list[tuple[int, str, bytes]]] = {file: [] for file in mark.files}
        gone: list[tuple[Kind, str]] = []
        for kind, id_ in touched.items:
            item = _item(state, kind, id_)
            verdict = _verdict(state, item, mark.form, None) if item is not None else Verdict("")
            label = f"{kind.name.lower()} {id_}"
            left_out.pop(label, None)
            if verdict.why:
                left_out[label] = verdict.why
            if not verdict.file:
                gone.append((kind, id_))
            for file in mark.files:
                if GROUP[file] != selection.FOLDER[kind]:
                    continue
                there = jsonform.find(self._data(file), id_)[0] >= 0
                if item is None or file != verdict.file:
                    if there:
                        changes[file][id_] = b""
                elif there and item.sequence <= mark.position.sequence:
                    changes[file][id_] = _record(item)
                else:
                    if there:
                        changes[file][id_] = b""
                    added[file].append((item.sequence, id_, _record(item)))
            if item is not None and verdict.file:
                self._lay(item, verify=False, damage=False)
        drafts: dict[str, _Draft] = {}
        sums = dict(mark.sums)
        written = removed = 0
        for file in mark.files:
            if not changes[file] and not added[file]:
                continue
            if not self._last_in_order(state, file, added[file]):
                return None
            data = self._data(file)
            records = [record for _, _, record in sorted(added[file])]
            total = sums[file]
            for id_, record in changes[file].items():
                start, end = jsonform.find(data, id_)
                total -= _number(data[start + 1 : end])
                total += _number(record) if record else 0
                removed += not record
                written += bool(record)
            total += sum(map(_number, records))
            written += len(records)
            pieces = jsonform.spliced(data, changes[file], records)
            drafts[file] = self._draft(file, pieces, mark.files[file])
            sums[file] = total
        for path in self._copied:
            copies.sync(path)
        self._publish(drafts, sums, dict.fromkeys(GROUP[file] for file in drafts), False)
        for kind, id_ in gone:
            self._clear(kind, id_)
        files = {
            file: _identity(self.place.json(file)) if file in drafts else found
            for file, found in mark.files.items()
        }
        self._write_mark(
            mark._replace(position=position, files=files, sums=sums, left_out=left_out)
        )
        return self._outcome(position, False, written, removed, left_out)

    def _last_in_order(self, state: State, file: str, added: list[tuple[int, str, bytes]]) -> bool:
        """Whether everything added comes after everything that is already in the file."""
        if not added:
            return True
        new = {id_ for _, id_, _ in added}
        first = min(sequence for sequence, _, _ in added)
        kind = next(kind for kind in Kind if selection.FOLDER[kind] == GROUP[file])
        start = keys.order(kind, file.startswith("volatile-"), first)
        return all(
            id_ in new or jsonform.find(self._data(file), id_)[0] < 0
            for _, id_ in state.scan(start[:-8], start)
        )

    # -- parts -----------------------------------------------------------------------------------

    def _data(self, file: str) -> bytes:
        """A file of records as it was when first looked at."""
        if file not in self._cache:
            self._cache[file] = self._read(file) or jsonform.EMPTY
        return self._cache[file]

    def _read(self, file: str) -> bytes | None:
        try:
            with open(self.place.json(file), "rb") as opened:
                return opened.read()
        except FileNotFoundError:
            return None

    def _make_folders(self, form: Form) -> None:
        for file in FILES[form]:
            os.makedirs(self.place.folder(GROUP[file]), mode=0o700, exist_ok=True)

    def _token(self, group: str, sums: Mapping[str, int]) -> bytes:
        total = 0
        for file in sorted(sums):
            if GROUP[file] == group:
                total += sums[file] * (1 if file == group else 3)
        total %= 1 << (8 * _SUM_BYTES)
        return (self.place.uuid + _ZERO)[:16] + total.to_bytes(_SUM_BYTES, "little")

    def _ours(self, token: bytes) -> bool:
        return token.startswith((self.place.uuid + _ZERO)[:16])

    def _check_foreign(self, records: Mapping[str, list[bytes]], overwrite: bool) -> None:
        """Refuse if another program wrote; its token tells, or records that nobody marked."""
        if overwrite:
            return
        for file in records:
            data = self._read(file)
            token = locks.token(self.place.lock(GROUP[file]))
            if data is None or data.strip() in (b"", b"[]", b"null") or self._ours(token):
                continue
            if (token or self.mark is None) and data != jsonform.joined(records[file]):
                raise ViewChanged(
                    f"{self.place.json(file)} was written by another program",
                    hint="look at it; adopt what is worth it into a store, then project with"
                    " --overwrite",
                )

    def _lay(self, item: Item, *, verify: bool, damage: bool) -> None:
        """Copies of the item's tar-split and big data, where they are not there yet."""
        content = self.place.content
        kind = _kind(item)
        folder = self.place.folder(selection.FOLDER[kind])
        wanted: list[tuple[str, str]] = []
        if isinstance(item, Layer) and item.diff.recipe:
            wanted.append((f"{folder}/{item.id}.tar-split.gz", item.diff.recipe))
        data = jsonform.storable(item.big_data)
        for blob in data:
            wanted.append((f"{folder}/{item.id}/{big_data_file(blob.name)}", blob.content))
        if data and not os.path.isdir(f"{folder}/{item.id}"):
            os.makedirs(f"{folder}/{item.id}", mode=0o700, exist_ok=True)
        for path, key in wanted:
            if copies.is_copy(path, key, content, verify=verify):
                continue
            if damage:
                self._repaired.append(path)
            copies.make(path, key, content, self.place.draft("copy"))
            self._copied.append(path)
        copies.drop_others(f"{folder}/{item.id}", {big_data_file(blob.name) for blob in data})
        if isinstance(item, Layer) and not item.diff.recipe:
            copies.remove(f"{folder}/{item.id}.tar-split.gz")

    def _clear(self, kind: Kind, id_: str) -> None:
        """Remove the copies of an item that is not shown any more."""
        if not selection.is_component(id_):
            return
        folder = self.place.folder(selection.FOLDER[kind])
        if kind is Kind.LAYER:
            copies.remove(f"{folder}/{id_}.tar-split.gz")
        copies.drop_others(f"{folder}/{id_}", set())
        copies.remove_folder(f"{folder}/{id_}")

    def _remove_strangers(self, shown: Mapping[Kind, set[str]], form: Form, *, damage: bool) -> int:
        """Remove copies that belong to nothing that is shown; returns how many items they are of.

        Folders of our own (``userdata``) are kept, with everything in them.
        """
        removed = 0
        groups = {GROUP[file] for file in FILES[form]}
        for kind, ids in shown.items():
            folder = self.place.folder(selection.FOLDER[kind])
            if selection.FOLDER[kind] not in groups:
                continue
            for name in sorted(os.listdir(folder)):
                id_ = name.removesuffix(".tar-split.gz")
                is_recipe = id_ != name and kind is Kind.LAYER
                path = f"{folder}/{name}"
                if id_ in ids or not selection.is_component(id_) or id_ == "tmp":
                    continue
                if is_recipe:
                    copies.remove(path)
                elif os.path.isdir(path) and not os.path.islink(path):
                    if not copies.drop_others(path, set()) and not copies.remove_folder(path):
                        continue
                    copies.remove_folder(path)
                else:
                    continue
                removed += 1
                if damage:
                    self._repaired.append(path)
        return removed

    def _sync(self) -> None:
        from cstorage.drivers.mountapi import sync_file_system

        fd = os.open(self.place.own_folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            sync_file_system(fd)
        finally:
            os.close(fd)

    def _draft(self, file: str, pieces: Iterable[memoryview], before: list[int]) -> _Draft:
        path = self.place.draft(file)
        copies.write(path, pieces)
        return _Draft(path, before)

    def _publish(
        self,
        drafts: Mapping[str, _Draft],
        sums: Mapping[str, int],
        groups: Iterable[str],
        overwrite: bool,
    ) -> None:
        """Under the locks of the groups concerned: replace the files, then the change tokens.

        In this order, because whoever is killed in between leaves an old token on new records:
        readers look again when the next refresh corrects the token.
        """
        changed = {GROUP[file] for file in drafts}
        late = [
            group
            for group in groups
            if group in changed or locks.token(self.place.lock(group)) != self._token(group, sums)
        ]
        try:
            if late:
                paths = {group: self.place.lock(group) for group in late}
                with locks.exclusive(list(paths.values()), self.timeout_s) as fds:
                    for file, draft in drafts.items():
                        self._check_unchanged(file, draft, overwrite)
                    for file, draft in drafts.items():
                        os.rename(draft.path, self.place.json(file))
                    for group, path in paths.items():
                        os.pwrite(fds[path], self._token(group, sums), 0)
        finally:
            for draft in drafts.values():
                copies.remove(draft.path)

    def _check_unchanged(self, file: str, draft: _Draft, overwrite: bool) -> None:
        if overwrite or _identity(self.place.json(file)) == draft.before:
            return
        raise ViewChanged(
            f"{self.place.json(file)} was written by another program just now",
            hint="run project again",
        )

    def _own_root_extras(self) -> None:
        """Spare the first consumer a walk over the whole home (drivers-and-formats §2.4)."""
        if self.place.driver == "overlay":
            root = self.place.graph_root
            copies.write_once(f"{root}/overlay/.has-mount-program", b"false", 0o600)

    def _write_mark(self, mark: Mark) -> None:
        marks.write(self.place, mark)
        self.mark = mark

    def _outcome(
        self,
        position: Position,
        whole: bool,
        written: int,
        removed: int,
        left_out: Mapping[str, str],
    ) -> Outcome:
        return Outcome(
            position.sequence, whole, written, removed, len(self._copied),
            tuple(self._repaired), tuple(sorted(left_out.items())),
        )  # fmt: skip

    # -- taking it down --------------------------------------------------------------------------

    def take_down(self, overwrite: bool = False) -> None:
        """Remove the view, and the mark. Raises ``ViewChanged`` if another program wrote to it."""
        self._check_foreign({file: [] for file in FILES[Form.OWN_ROOT]}, overwrite)
        self._remove_strangers({kind: set() for kind in self._folders()}, Form.OWN_ROOT,
                               damage=False)  # fmt: skip
        for file, group in GROUP.items():
            copies.remove(self.place.json(file))
            copies.remove(self.place.lock(group))
            copies.remove_folder(self.place.folder(group))
        copies.remove(self.place.mark)

    def _folders(self) -> list[Kind]:
        return [k for k in Kind if os.path.isdir(self.place.folder(selection.FOLDER[k]))]


class _Touched:
    """Items whose records may differ because of some events."""

    def __init__(self, view: Projection) -> None:
        self._view = view
        self.items: dict[tuple[Kind, str], None] = {}

    def see(self, state: State, event: ev.Event) -> None:
        kind, id_ = ev.subject(event)
        if kind is None or isinstance(event, ev.Pinned | ev.Unpinned):
            return  # pins are not shown
        self.items[kind, id_] = None
        match event:
            case ev.LayerCreated() | ev.LayerDeleted() | ev.LayerDiffApplied():
                self._above(state, id_)
            case ev.ImageCreated() | ev.ImageDeleted():
                for container in state.containers_of_image(id_):
                    self.items[Kind.CONTAINER, container] = None
            case ev.NamesSet() | ev.NamesAdded():
                # Whoever held one of the names has lost it: its old record still shows it.
                for file, group in GROUP.items():
                    if group == selection.FOLDER[kind] and self._shown(file):
                        for name in event.names:
                            for other in jsonform.holders(self._view._data(file), name):
                                self.items[kind, other] = None
            case _:
                pass

    def _shown(self, file: str) -> bool:
        return self._view.mark is not None and file in self._view.mark.files

    def _above(self, state: State, layer: str) -> None:
        """Images and containers above the layer: whether they can be shown may change."""
        pending = [layer]
        seen = {layer}
        while pending:
            current = pending.pop()
            for image in state.images_of_layer(current):
                self.items[Kind.IMAGE, image] = None
            container = state.container_of_layer(current)
            if container is not None:
                self.items[Kind.CONTAINER, container] = None
            for child in state.children(current):
                if child not in seen:
                    seen.add(child)
                    pending.append(child)


def _kind(item: Item) -> Kind:
    match item:
        case Layer():
            return Kind.LAYER
        case Image():
            return Kind.IMAGE
        case Container():
            return Kind.CONTAINER


def _item(state: State, kind: Kind, id_: str) -> Item | None:
    find: dict[Kind, Callable[[str], Item | None]] = {
        Kind.LAYER: state.layer,
        Kind.IMAGE: state.image,
        Kind.CONTAINER: state.container,
    }
    return find[kind](id_)


def _verdict(state: State, item: Item, form: Form, sound: dict[str, str] | None) -> Verdict:
    match item:
        case Layer():
            return selection.layer(state, item, form)
        case Image():
            return selection.image(state, item, form, sound)
        case Container():
            return selection.container(state, item, form)


def _record(item: Item) -> bytes:
    match item:
        case Layer():
            return jsonform.layer_record(item)
        case Image():
            return jsonform.image_record(item)
        case Container():
            return jsonform.container_record(item)
