"""Layers as the tools of the field make them: in and out again, byte for byte, on both drivers.

Built here and now: a Debian by debootstrap, images by buildah and umoci with changes and deletions
in their upper layers, and what skopeo makes of them (zstd; the uncompressed layers of a Docker
archive). Every layer goes into a store and comes out as it was before compression, and Debian's
``tar-split`` makes the same bytes from our recipe and our tree.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import shutil
import subprocess
import tarfile
from pathlib import Path
from typing import NamedTuple

import pytest

import cstorage
from cstorage.archive.apply import ApplyOptions, apply_layer
from cstorage.model import Compression

pytestmark = [
    pytest.mark.root,
    pytest.mark.peer,
    pytest.mark.skipif(os.geteuid() != 0, reason="images with owners and devices need root"),
]
PACKAGES = ("bash", "bsdutils", "coreutils", "passwd", "tar", "util-linux")


class Blob(NamedTuple):
    """A layer as it was found, and the digest its image says it has uncompressed."""

    data: bytes
    diff_id: str


Image = list[Blob]


def needs(*tools: str) -> None:
    for tool in tools:
        if shutil.which(tool) is None:
            pytest.skip(f"{tool} is not installed")


def run(*command: str | Path, timeout: int = 120) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=timeout)
    assert done.returncode == 0, f"{command}: {done.stderr[-2000:]}"
    return done.stdout.strip()


def oci_image(layout: Path, tag: str) -> Image:
    """The layers of an image in an OCI layout, lowest first."""

    def blob(digest: str) -> bytes:
        data = (layout / "blobs" / digest.replace(":", "/")).read_bytes()
        assert "sha256:" + hashlib.sha256(data).hexdigest() == digest
        return data

    index = json.loads((layout / "index.json").read_bytes())
    entry = next(
        found for found in index["manifests"]
        if found["annotations"]["org.opencontainers.image.ref.name"] == tag
    )  # fmt: skip
    manifest = json.loads(blob(entry["digest"]))
    config = json.loads(blob(manifest["config"]["digest"]))
    found = [blob(layer["digest"]) for layer in manifest["layers"]]
    return [Blob(*pair) for pair in zip(found, config["rootfs"]["diff_ids"], strict=True)]


def fill(tree: Path) -> None:
    """What a first layer has, and no archive of text files."""
    for name in ("bin", "etc", "usr/lib/" + "l" * 110, "var/tmp", "dev", "opaque/inner"):
        (tree / name).mkdir(parents=True, exist_ok=True)
    shutil.copy("/bin/true", tree / "bin" / "true")
    (tree / "bin" / "true").chmod(0o4755)
    os.link(tree / "bin" / "true", tree / "bin" / "again")
    (tree / "bin" / "sh").symlink_to("true")
    (tree / "etc" / "shadow").write_text("root:*:1::::::\n")
    os.chown(tree / "etc" / "shadow", 0, 42)
    (tree / "etc" / "shadow").chmod(0o640)
    (tree / "etc" / "owned").write_text("x")
    os.chown(tree / "etc" / "owned", 3_000_000, 3_000_000)
    (tree / "usr" / "lib" / ("l" * 110) / ("ü" * 60)).write_bytes(os.urandom(70_000))
    (tree / "usr" / "lib" / ("l" * 110) / "far").symlink_to("/" + "t" * 150)
    os.setxattr(tree / "bin" / "true", "user.kept", b"\x00\xff")
    (tree / "var" / "tmp").chmod(0o1777)
    os.mkfifo(tree / "dev" / "initctl")
    os.mknod(tree / "dev" / "null", 0o20666, os.makedev(1, 3))
    for name in ("gone", "opaque/inner/f", "opaque/g", "dir-then-file/f"):
        (tree / name).parent.mkdir(exist_ok=True)
        (tree / name).write_text(name)
    with open(tree / "holes", "wb") as holes:
        holes.seek(1 << 20)
        holes.write(b"end")


def change(tree: Path) -> None:
    """What a second layer does to it: removed, replaced, emptied and refilled."""
    (tree / "gone").unlink()
    shutil.rmtree(tree / "opaque")
    (tree / "opaque").mkdir()
    (tree / "opaque" / "new").write_text("new")
    shutil.rmtree(tree / "dir-then-file")
    (tree / "dir-then-file").write_text("now a file")
    (tree / "etc" / "owned").chmod(0o600)
    with open(tree / "etc" / "shadow", "a") as file:
        file.write("more\n")


@pytest.fixture(scope="module")
def debian(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Image:
    """The packages of a minimal Debian, unpacked by debootstrap; kept in pytest's cache."""
    needs("debootstrap", "tar")
    kept: Path = request.config.cache.mkdir("debootstrap") / "debian.tar.gz"  # type: ignore[union-attr]
    if not kept.exists():
        tree = tmp_path_factory.mktemp("debian")
        done = subprocess.run(
            ["debootstrap", "--variant=minbase", "--foreign", "stable", tree],
            capture_output=True, text=True, check=False, timeout=250,
        )  # fmt: skip
        if done.returncode:
            pytest.skip(f"debootstrap: {(done.stdout + done.stderr).strip()[-200:]}")
        shutil.rmtree(tree / "var" / "cache" / "apt" / "archives", ignore_errors=True)
        shutil.rmtree(tree / "var" / "lib" / "apt" / "lists", ignore_errors=True)
        run("tar", "--xattrs", "-C", tree, "-czf", f"{kept}.part", ".")
        Path(f"{kept}.part").rename(kept)
        shutil.rmtree(tree)
    data = kept.read_bytes()
    return [Blob(data, "sha256:" + hashlib.sha256(gzip.decompress(data)).hexdigest())]


@pytest.fixture(scope="module")
def buildah(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An OCI layout with an image of two layers by buildah, the second with deletions."""
    needs("buildah")
    base = tmp_path_factory.mktemp("buildah")
    tool = ["buildah", "--root", base / "root", "--runroot", base / "run"]
    tool += ["--storage-driver", "vfs"]
    source = "scratch"
    for tag, act in (("one", fill), ("two", change)):
        work = run(*tool, "from", "--pull-never", source)
        act(Path(run(*tool, "mount", work)))
        run(*tool, "commit", "-q", work, f"local:{tag}")
        run(*tool, "push", "-q", f"local:{tag}", f"oci:{base / 'layout'}:{tag}")
        run(*tool, "rm", work)
        source = f"local:{tag}"
    return base / "layout"


@pytest.fixture(scope="module")
def umoci(tmp_path_factory: pytest.TempPathFactory) -> Image:
    """The same by umoci."""
    needs("umoci")
    base = tmp_path_factory.mktemp("umoci")
    layout = base / "layout"
    run("umoci", "init", "--layout", layout)
    run("umoci", "new", "--image", f"{layout}:zero")
    before = "zero"
    for tag, act in (("one", fill), ("two", change)):
        run("umoci", "unpack", "--image", f"{layout}:{before}", base / tag)
        act(base / tag / "rootfs")
        run("umoci", "repack", "--image", f"{layout}:{tag}", base / tag)
        before = tag
    return oci_image(layout, "two")


@pytest.fixture(scope="module")
def skopeo_zstd(buildah: Path, tmp_path_factory: pytest.TempPathFactory) -> Image:
    """buildah's image, its layers compressed with zstd by skopeo."""
    needs("skopeo")
    layout = tmp_path_factory.mktemp("skopeo") / "layout"
    run(
        "skopeo", "copy", "-q", "--insecure-policy", "--dest-compress-format", "zstd",
        "--dest-compress", f"oci:{buildah}:two", f"oci:{layout}:two",
    )  # fmt: skip
    return oci_image(layout, "two")


@pytest.fixture(scope="module")
def docker_archive(buildah: Path, tmp_path_factory: pytest.TempPathFactory) -> Image:
    """buildah's image as ``docker save`` would write it, layers uncompressed."""
    needs("skopeo")
    archive = tmp_path_factory.mktemp("docker") / "image.tar"
    run(
        "skopeo", "copy", "-q", "--insecure-policy", f"oci:{buildah}:two",
        f"docker-archive:{archive}:name:tag",
    )  # fmt: skip
    with tarfile.open(archive) as image:

        def member(name: str) -> bytes:
            file = image.extractfile(name)
            assert file is not None
            return file.read()

        manifest = json.loads(member("manifest.json"))[0]
        config = json.loads(member(manifest["Config"]))
        layers = [member(name) for name in manifest["Layers"]]
    return [Blob(*pair) for pair in zip(layers, config["rootfs"]["diff_ids"], strict=True)]


SOURCES = ("debian", "buildah", "umoci", "skopeo_zstd", "docker_archive")


@pytest.fixture
def image(request: pytest.FixtureRequest) -> Image:
    """The image whose fixture the test's parameter names."""
    found = request.getfixturevalue(request.param)
    return oci_image(found, "two") if isinstance(found, Path) else found


def plain(data: bytes) -> bytes:
    """Decompressed by programmes that are not ours."""
    if data.startswith(b"\x1f\x8b"):
        return gzip.decompress(data)
    if data.startswith(b"\x28\xb5\x2f\xfd"):
        return subprocess.run(["zstd", "-dc"], input=data, capture_output=True, check=True).stdout
    return data


@pytest.mark.parametrize("driver", ["vfs", "overlay"])
@pytest.mark.parametrize("image", SOURCES, indirect=True)
def test_layers_come_out_of_a_store_as_they_went_in(
    image: Image, driver: str, tmp_path: Path
) -> None:
    """Every layer of the image on the one below; digests, sizes and bytes are those of the blob."""
    with cstorage.open(
        graph_root=tmp_path / "graph", run_root=tmp_path / "run", driver=driver
    ) as store:
        parent = ""
        for blob in image:
            expected = plain(blob.data)
            layer = store.import_layer(io.BytesIO(blob.data), parent=parent)
            assert layer.diff.uncompressed_digest == blob.diff_id
            assert layer.diff.uncompressed_size == len(expected)
            assert layer.diff.compressed_size == len(blob.data)
            parent = layer.id
        for blob, key in zip(image, reversed(_chain(store, parent)), strict=True):
            out = io.BytesIO()
            store.diff(key, out, compression=Compression.NONE)
            assert hashlib.sha256(out.getbuffer()).hexdigest() == blob.diff_id.partition(":")[2]
            assert out.getvalue() == plain(blob.data)


def _chain(store: cstorage.Store, key: str) -> list[str]:
    found = []
    while key:
        found.append(key)
        key = store.layer(key).parent
    return found


@pytest.mark.parametrize("image", SOURCES, indirect=True)
def test_tar_split_reassembles_layers_of_other_tools(image: Image, tmp_path: Path) -> None:
    """Debian's tar-split, our recipe and our tree give the bytes of the layer."""
    needs("tar-split")
    for number, blob in enumerate(image):
        tree, recipe = tmp_path / f"tree{number}", tmp_path / f"recipe{number}"
        tree.mkdir()
        fd = os.open(tree, os.O_RDONLY)
        try:
            with open(recipe, "wb") as out:
                apply_layer(io.BytesIO(blob.data), fd, ApplyOptions(), recipe=out)
        finally:
            os.close(fd)
        again = tmp_path / "again.tar"
        run("tar-split", "asm", "--input", recipe, "--path", tree, "--output", again)
        with open(again, "rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        assert "sha256:" + digest == blob.diff_id
        again.unlink()


@pytest.mark.parametrize("image", SOURCES[1:], indirect=True)
def test_the_images_have_what_they_are_for(image: Image) -> None:
    """Whiteouts in the second layer, hard links, devices and long names in the first."""
    assert len(image) == 2
    with tarfile.open(fileobj=io.BytesIO(plain(image[0].data))) as tar:
        kinds = {info.type for info in tar}
    assert kinds >= {tarfile.REGTYPE, tarfile.LNKTYPE, tarfile.SYMTYPE, tarfile.CHRTYPE,
                     tarfile.FIFOTYPE, tarfile.DIRTYPE}  # fmt: skip
    with tarfile.open(fileobj=io.BytesIO(plain(image[1].data))) as tar:
        names = {info.name.removeprefix("./") for info in tar}
    assert ".wh.gone" in names
    assert "opaque/new" in names
    assert any(name.startswith("opaque/.wh.") or name == ".wh.opaque" for name in names)


def test_the_debian_is_one(debian: Image) -> None:
    """Thousands of files and the programmes of a base system, set-user-ID ones among them."""
    with tarfile.open(fileobj=io.BytesIO(debian[0].data)) as tar:
        infos = {info.name.removeprefix("./"): info for info in tar}
    assert len(infos) > 3000
    assert any(info.mode & 0o4000 and info.isreg() for info in infos.values())
    assert any(name.endswith("bin/bash") for name in infos)
