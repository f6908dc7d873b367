"""File names of the original for blobs with arbitrary names (drivers-and-formats §1.9)."""

from __future__ import annotations


def blob_file(name: str) -> str:
    """Name of the file that the original keeps the blob ``name`` in.

    Names of ``0-9``, ``a-z`` and ``.`` stand for themselves, others for their base64 behind ``=``;
    a name whose only other character is its last one is left as it is.
    """
    import base64

    raw = name.encode("utf-8", "surrogateescape")
    for index, byte in enumerate(raw):
        if not (byte == 0x2E or 0x30 <= byte <= 0x39 or 0x61 <= byte <= 0x7A):
            width = 1 if byte < 0x80 else 2 if byte < 0xE0 else 3 if byte < 0xF0 else 4
            if index + width < len(raw):
                return "=" + base64.b64encode(raw).decode()
            break
    return name
