"""What a mount program (fuse-overlayfs) keeps in its layers, told as archives tell it.

A mount program marks in its own ways what the kernel has no means for, or what its user may not do:

* an opaque directory by the file ``.wh..wh..opq`` and by a whiteout device ``.wh..opq`` beside it,
  which together make that name twice, and by attributes of its own;
* owner and mode of a file by the attribute ``user.containers.override_stat`` (``uid:gid:mode``, the
  mode octal, a type may follow), where it could not give the file to somebody else.
"""

from __future__ import annotations

import os

from cstorage.archive import beneath
from cstorage.errors import ArchiveError
from journal.plain import TYPE_CHECKING

if TYPE_CHECKING:
    import tarfile

    from cstorage.archive.compression import ByteSink
    from cstorage.interop.transfer import Stream

_OWNERS = ("user.containers.override_stat", "user.fuseoverlayfs.override_stat")
_BOOK_KEEPING = ".wh..wh."
_OPAQUE = ".wh..wh..opq"


def translate(source: Stream, sink: ByteSink, tree: str) -> None:
    """Copy the archive ``source`` of the layer directory ``tree`` to ``sink``, told plainly.

    Private attributes are in no archive of ours, so owners are looked up in the tree. Raises
    ``ArchiveError`` if one is recorded in a way that cannot be understood.
    """
    import tarfile

    told: set[str] = set()
    root = os.open(tree, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with (
            tarfile.open(fileobj=source, mode="r|", encoding="utf-8") as old,  # type: ignore[call-overload]
            tarfile.open(
                fileobj=sink, mode="w|", format=tarfile.PAX_FORMAT, encoding="utf-8"
            ) as new,  # type: ignore[call-overload]
        ):
            for member in old:
                base = member.name.rpartition("/")[2]
                if base.startswith(".wh."):
                    if member.name in told or (base.startswith(_BOOK_KEEPING) and base != _OPAQUE):
                        continue
                    told.add(member.name)
                _own(member, root)
                new.addfile(member, old.extractfile(member) if member.isreg() else None)
    except tarfile.TarError as error:
        raise ArchiveError(f"its tree makes no archive: {error}") from error
    finally:
        os.close(root)


def _own(member: tarfile.TarInfo, root: int) -> None:
    """Give the member the owner and mode it stands for."""
    text = _override(root, os.fsencode(member.name))
    if not text:
        return
    parts = text.split(b":")
    try:
        uid, gid, mode = int(parts[0]), int(parts[1]), int(parts[2], 8)
    except (ValueError, IndexError):
        raise ArchiveError(f"{member.name!r}: its owner and mode are {text!r}") from None
    member.uid, member.gid, member.mode = uid, gid, mode & 0o7777
    member.pax_headers = {k: v for k, v in member.pax_headers.items() if k not in ("uid", "gid")}


def _override(root: int, name: bytes) -> bytes | None:
    """The attribute with owner and mode of the file ``name``, without leaving the tree."""
    directory, _, base = name.strip(b"/").rpartition(b"/")
    try:
        folder = beneath.open_in_root(root, directory, beneath.DIRECTORY)
    except OSError:
        return None
    try:
        path = beneath.descriptor_path(folder, base)
        found = (beneath.get_xattr(path, key, follow=not base) for key in _OWNERS)
        return next((text for text in found if text), None)
    finally:
        os.close(folder)
