"""Signed tree heads, to be kept where the journal's owner cannot reach them.

Rules of this module:

* The text form is that of C2SP tlog-checkpoint and signed-note: origin, size, root, a blank line,
  one Ed25519 signature line. Any verifier of that form can read it.
* The key is a PKCS#8 PEM file of mode 0600; the public key is printed in the signed-note form
  ``name+hash+key``.
* Needs the ``sign`` extra (cryptography).
"""

from __future__ import annotations

import base64
import os
from hashlib import sha256
from typing import TYPE_CHECKING, Any, NamedTuple

from journal.audit import Leaves
from journal.errors import InvalidRecord, JournalError

if TYPE_CHECKING:
    from journal.facade import Journal

_DASH = "\u2014"


class Checkpoint(NamedTuple):
    """A tree head: the log's name, number of frames, root."""

    origin: str
    size: int
    root: bytes


def _crypto() -> Any:
    try:
        from cryptography.hazmat.primitives.asymmetric import ed25519
    except ImportError as error:
        raise JournalError("signing needs the cryptography package (extra: sign)") from error
    return ed25519


def generate_key(path: str) -> None:
    """Make a signing key; ``FileExistsError`` rather than replacing one."""
    ed25519 = _crypto()
    from cryptography.hazmat.primitives import serialization

    pem = ed25519.Ed25519PrivateKey.generate().private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(fd, "wb") as file:
        file.write(pem)


def _key(path: str) -> Any:
    ed25519 = _crypto()
    from cryptography.hazmat.primitives import serialization

    with open(path, "rb") as file:
        try:
            key = serialization.load_pem_private_key(file.read(), password=None)
        except (ValueError, TypeError) as error:
            raise JournalError(f"{path}: not a signing key: {error}") from error
    if not isinstance(key, ed25519.Ed25519PrivateKey):
        raise JournalError(f"{path}: not an Ed25519 key")
    return key


def _raw(key: Any) -> bytes:
    from cryptography.hazmat.primitives import serialization

    raw: bytes = key.public_key().public_bytes(
        serialization.Encoding.Raw, serialization.PublicFormat.Raw
    )
    return raw


def _key_hash(name: str, raw: bytes) -> bytes:
    return sha256(name.encode() + b"\n\x01" + raw).digest()[:4]


def public_key(path: str, name: str) -> str:
    """The verifier key of signed notes: ``name+hash+base64``."""
    raw = _raw(_key(path))
    encoded = base64.b64encode(b"\x01" + raw).decode()
    return f"{name}+{_key_hash(name, raw).hex()}+{encoded}"


def body(checkpoint: Checkpoint) -> str:
    root = base64.b64encode(checkpoint.root).decode()
    return f"{checkpoint.origin}\n{checkpoint.size}\n{root}\n"


def sign(journal: Journal, key_path: str, origin: str = "") -> str:
    """A signed checkpoint of the log as it is now."""
    origin = origin or f"journal/{journal.uuid.hex()}"
    if not origin or "\n" in origin or "+" in origin or " " in origin:
        raise JournalError("an origin has no spaces, plus signs or line ends")
    key = _key(key_path)
    leaves = Leaves(journal)
    text = body(Checkpoint(origin, len(leaves.hashes), leaves.root()))
    signature = _key_hash(origin, _raw(key)) + key.sign(text.encode())
    return f"{text}\n{_DASH} {origin} {base64.b64encode(signature).decode()}\n"


def parse(note: str) -> Checkpoint:
    """The checkpoint in a note, unverified; ``InvalidRecord`` if it is not one."""
    try:
        origin, size, root, *_ = note.split("\n")
        found = Checkpoint(origin, int(size), base64.b64decode(root, validate=True))
    except ValueError as error:
        raise InvalidRecord(f"not a checkpoint: {error}") from error
    if len(found.root) != 32 or not origin:
        raise InvalidRecord("not a checkpoint")
    return found


def check_signature(note: str, verifier: str) -> Checkpoint:
    """The checkpoint, if the key ``name+hash+base64`` signed it; ``InvalidRecord`` otherwise."""
    ed25519 = _crypto()
    from cryptography.exceptions import InvalidSignature

    found = parse(note)
    text, blank, signatures = note.partition("\n\n")
    try:
        name, hashed, encoded = verifier.strip().split("+", 2)
        key = base64.b64decode(encoded, validate=True)
        if not blank or key[:1] != b"\x01" or _key_hash(name, key[1:]).hex() != hashed:
            raise ValueError("not a verifier key")
        for line in signatures.splitlines():
            dash, signer, value = line.split(" ")
            raw = base64.b64decode(value, validate=True)
            if dash == _DASH and signer == name and raw[:4] == _key_hash(name, key[1:]):
                ed25519.Ed25519PublicKey.from_public_bytes(key[1:]).verify(
                    raw[4:], (text + "\n").encode()
                )
                return found
    except (ValueError, InvalidSignature) as error:
        raise InvalidRecord(f"the signature does not hold: {error}") from error
    raise InvalidRecord(f"the note has no signature of {name}")


def check_journal(journal: Journal, checkpoint: Checkpoint) -> bool:
    """Whether the log still extends the checkpoint."""
    leaves = Leaves(journal)
    return checkpoint.size <= len(leaves.hashes) and leaves.root(checkpoint.size) == checkpoint.root
