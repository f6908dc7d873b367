"""The real tools, on temporary roots, and images made without a network."""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import subprocess
import tarfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence

    import cstorage

TIMEOUT_S = 120


def missing(*names: str) -> str:
    """Why a test that needs these programmes cannot run, "" if it can."""
    if os.getuid() != 0:
        return "not root: real mounts and owners"
    absent = [name for name in names if shutil.which(name) is None]
    return f"not installed: {', '.join(absent)}" if absent else ""


class Done(NamedTuple):
    """What a programme did."""

    exit: int
    out: bytes
    err: str

    @property
    def text(self) -> str:
        return self.out.decode()


def run(*argv: str | Path, stdin: bytes = b"", env: dict[str, str] | None = None) -> Done:
    done = subprocess.run(
        [str(word) for word in argv], input=stdin, capture_output=True, check=False,
        timeout=TIMEOUT_S, env={**os.environ, **(env or {})},
    )  # fmt: skip
    return Done(done.returncode, done.stdout, done.stderr.decode("utf-8", "replace"))


def ok(*argv: str | Path, stdin: bytes = b"", env: dict[str, str] | None = None) -> str:
    done = run(*argv, stdin=stdin, env=env)
    assert done.exit == 0, f"{[str(word) for word in argv]}: {done}"
    return done.text


class Engine:
    """A root of its own for podman, buildah, skopeo and containers-storage, with one driver.

    ``store`` is an additional image store that it reads, ``overlay`` lines for the overlay driver.
    """

    def __init__(
        self, base: Path, driver: str, store: Path | None = None, overlay: str = ""
    ) -> None:
        base.mkdir(parents=True, exist_ok=True)
        self.root, self.run_root, self.driver, self.store = base / "r", base / "rr", driver, store
        options = f'additionalimagestores = ["{store}"]' if store else ""
        self.conf = base / "storage.conf"
        self.conf.write_text(
            f'[storage]\ndriver = "{driver}"\ngraphroot = "{self.root}"\n'
            f'runroot = "{self.run_root}"\n[storage.options]\n{options}\n'
            f"[storage.options.overlay]\n{overlay}\n"
        )
        self.policy = base / "policy.json"
        self.policy.write_text('{"default":[{"type":"insecureAcceptAnything"}]}')
        containers = base / "containers.conf"
        containers.write_text('[engine]\ncgroup_manager = "cgroupfs"\nevents_logger = "file"\n')
        self.env = {
            "CONTAINERS_STORAGE_CONF": str(self.conf),
            "CONTAINERS_CONF": str(containers),
            "TMPDIR": str(base),
            "XDG_RUNTIME_DIR": str(base),
        }

    def at(self, root: Path) -> Engine:
        """The same with another root of its own."""
        self.conf.write_text(self.conf.read_text().replace(f'"{self.root}"', f'"{root}"'))
        self.root = root
        return self

    def podman(self, *words: str) -> str:
        return ok("podman", *words, env=self.env)

    def buildah(self, *words: str) -> str:
        return ok("buildah", *words, env=self.env)

    def skopeo(self, *words: str) -> str:
        return ok("skopeo", "--policy", str(self.policy), *words, env=self.env)

    def original(self, *words: str) -> str:
        return ok("containers-storage", *words, env=self.env)

    def original_json(self, *words: str) -> Any:
        return json.loads(self.original(*words) or "null")


# -- images --------------------------------------------------------------------------------------


def _tar(entries: Sequence[tuple[str, Any]]) -> bytes:
    """A layer: ``(name, bytes)`` files, ``(name, None)`` directories, else fields."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name, what in entries:
            info = tarfile.TarInfo(name)
            info.mtime = 1_700_000_000
            if what is None:
                info.type, info.mode = tarfile.DIRTYPE, 0o755
                archive.addfile(info)
            elif isinstance(what, bytes):
                info.size, info.mode = len(what), 0o644
                archive.addfile(info, io.BytesIO(what))
            else:
                for field, value in what.items():
                    setattr(info, field, value)
                archive.addfile(info)
    return out.getvalue()


def layers() -> list[bytes]:
    """Three layers with what is hard: owners, setuid, links, a whiteout, an opaque directory."""
    big = hashlib.shake_128(b"big").digest(300_000)
    return [
        _tar([
            ("etc", None), ("etc/one", b"one\n"), ("etc/two", b"two\n"),
            ("etc/hard", {"type": tarfile.LNKTYPE, "linkname": "etc/one"}),
            ("etc/link", {"type": tarfile.SYMTYPE, "linkname": "one"}),
            ("opq", None), ("opq/old", b"old\n"), ("srv", None), ("srv/big", big),
            ("etc/mine", {"uid": 7, "gid": 8, "mode": 0o4755}),
            ("a<&>b", b"odd\n"),
        ]),
        _tar([
            ("etc/.wh.two", b""), ("opq", None), ("opq/.wh..wh..opq", b""), ("opq/new", b"new\n"),
        ]),
        _tar([("etc/three", b"three\n"), ("srv/xattr", {"pax_headers": {
            "SCHILY.xattr.user.note": "kept"}})]),
    ]  # fmt: skip


def oci_layout(folder: Path, archives: Sequence[bytes], tag: str = "t", note: str = "") -> str:
    """An OCI layout with one image of these layers (gzip); returns the manifest's digest."""
    import gzip

    blobs = folder / "blobs" / "sha256"
    blobs.mkdir(parents=True, exist_ok=True)

    def put(data: bytes) -> str:
        digest = hashlib.sha256(data).hexdigest()
        (blobs / digest).write_bytes(data)
        return f"sha256:{digest}"

    packed = [gzip.compress(data, 6, mtime=0) for data in archives]
    config = json.dumps({
        "created": "2024-01-02T03:04:05Z", "architecture": "amd64", "os": "linux",
        "config": {"Cmd": ["/bin/sh"], "Labels": {"note": note}},
        "rootfs": {"type": "layers", "diff_ids": [
            "sha256:" + hashlib.sha256(data).hexdigest() for data in archives]},
        "history": [{"created": "2024-01-02T03:04:05Z", "created_by": f"step {n}"}
                    for n in range(len(archives))],
    }).encode()  # fmt: skip
    manifest = json.dumps({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": {"mediaType": "application/vnd.oci.image.config.v1+json",
                   "digest": put(config), "size": len(config)},
        "layers": [{"mediaType": "application/vnd.oci.image.layer.v1.tar+gzip",
                    "digest": put(data), "size": len(data)} for data in packed],
    }).encode()  # fmt: skip
    digest = put(manifest)
    (folder / "oci-layout").write_text('{"imageLayoutVersion":"1.0.0"}')
    (folder / "index.json").write_text(json.dumps({
        "schemaVersion": 2,
        "manifests": [{"mediaType": "application/vnd.oci.image.manifest.v1+json",
                       "digest": digest, "size": len(manifest),
                       "annotations": {"org.opencontainers.image.ref.name": tag}}],
    }))  # fmt: skip
    return digest


class Loaded(NamedTuple):
    """An image in one of our stores and what it was made from."""

    id: str
    name: str
    digest: str
    layers: list[str]
    diff_ids: list[str]


def load(store: cstorage.Store, layout: Path, name: str) -> Loaded:
    """Put the image of an OCI layout into a store, with IDs and data as containers/image does."""
    blobs = layout / "blobs" / "sha256"
    entry = json.loads((layout / "index.json").read_text())["manifests"][0]
    digest = entry["digest"]
    raw = (blobs / digest.split(":")[1]).read_bytes()
    manifest = json.loads(raw)
    config = manifest["config"]["digest"]
    config_raw = (blobs / config.split(":")[1]).read_bytes()
    diff_ids = json.loads(config_raw)["rootfs"]["diff_ids"]
    parent, ids = "", []
    for diff_id, layer in zip(diff_ids, manifest["layers"], strict=True):
        component = diff_id.split(":")[1]
        id_ = hashlib.sha256(f"{parent}+{component}".encode()).hexdigest() if parent else component
        if not store.exists(id_):
            with (blobs / layer["digest"].split(":")[1]).open("rb") as source:
                store.import_layer(source, id=id_, parent=parent)
        parent = id_
        ids.append(id_)
    image = config.split(":")[1]
    store.create_image(
        image, [name], parent, digest=digest, created_ns=1_704_164_645_000_000_000,
        metadata="{}",
        big_data=[(f"manifest-{digest}", raw, digest), ("manifest", raw, digest),
                  (config, config_raw), (f"signature-{digest.split(':')[1]}", b"")],
    )  # fmt: skip
    return Loaded(image, name, digest, ids, diff_ids)


def listing(folder: Path) -> dict[str, tuple[str, int, int, bytes]]:
    """What is in a tree: mode, owners and content; directory sizes and times left out."""
    found = {}
    for path in sorted(folder.rglob("*")):
        info = path.lstat()
        data = b""
        if path.is_symlink():
            data = os.readlink(path).encode()
        elif path.is_file():
            data = path.read_bytes()
        found[str(path.relative_to(folder))] = (oct(info.st_mode), info.st_uid, info.st_gid, data)
    return found


def view_bytes(graph: Path, driver: str) -> dict[str, bytes]:
    """Every file of a view with its bytes."""
    found = {}
    for group in ("layers", "images", "containers"):
        folder = graph / f"{driver}-{group}"
        for path in sorted(folder.rglob("*")) if folder.is_dir() else []:
            if path.is_file():
                found[str(path.relative_to(graph))] = path.read_bytes()
    return found
