"""Which big data the original can keep in files, and under which names. Pure."""

from __future__ import annotations

from cstorage.interop.names import blob_file

_NAME_MAX = 255


def big_data_file(name: str) -> str:
    """The file for the item ``name``; "" if the original could not keep it in a file at all.

    A name of ``/`` at the end, ``.`` and the like lead to another file or to a directory there.
    """
    found = blob_file(name)
    if found in {"", ".", ".."} or "/" in found or "\0" in found:
        return ""
    return found if len(found.encode("utf-8", "surrogateescape")) <= _NAME_MAX else ""
