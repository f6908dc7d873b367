"""Layers: rows 36 to 75 of the checklist (semantics §12.2)."""

from __future__ import annotations

import bz2
import gzip
import hashlib
import io
import lzma
import os
import threading

import pytest
import zstandard
from tars import BASE, CHANGES, Member, archive, folder

from cstorage import MapOptions
from cstorage.archive.options import ApplyOptions
from cstorage.errors import (
    ArchiveError,
    DriverError,
    DuplicateID,
    DuplicateName,
    InvalidBigDataName,
    InvalidDigest,
    LayerNotMounted,
    LayerUnknown,
    NotSupported,
    ParentIsContainer,
    StorageError,
    UnsupportedCompression,
)
from cstorage.model import ChangeKind, Compression, IDMapEntry
from tests.store.place import diff_of, digest, fill, ids

NOTHING = "sha256:" + hashlib.sha256(b"").hexdigest()
SHIFT = MapOptions(uids=(IDMapEntry(0, 100000, 65536),), gids=(IDMapEntry(0, 200000, 65536),))


def sha256(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


def noise(size: int = 4096) -> bytes:
    """Bytes that are no archive, the same in every run."""
    return hashlib.shake_128(b"noise").digest(size)


def path_in(store, layer_id: str, name: str) -> str:
    """Where a file of a layer's own content is on disk."""
    return os.path.join(store._core.driver.content_root(layer_id), name)


def test_an_unknown_parent_is_refused(store):
    """Row 36."""
    with pytest.raises(LayerUnknown):
        store.create_layer(parent="nobody")
    with pytest.raises(LayerUnknown):
        fill(store, parent="nobody")
    assert ids(store.layers()) == []


def test_the_record_has_the_parents_full_id(store):
    """Row 37."""
    base = store.create_layer("0123456789", names=["base"])
    assert store.create_layer(parent="base").parent == base.id
    assert store.create_layer(parent="0123").parent == base.id


@pytest.mark.parametrize("spelling", ["its-layer", "its-", "by-name"])
def test_a_containers_layer_cannot_be_a_parent(store, spelling):
    """Rows 38 and 39. However it is spelled; the original looks at the spelling only (Q-10)."""
    store.create_container(layer_id="its-layer")
    store.set_names("its-layer", ["by-name"])
    with pytest.raises(ParentIsContainer):
        store.create_layer(parent=spelling)


def test_an_unknown_template_is_refused(store):
    """Row 40."""
    with pytest.raises(LayerUnknown):
        store.create_layer("new", template="nobody")
    assert ids(store.layers()) == []


def test_a_template_is_looked_for_when_id_and_names_are_free(store):
    """§4.3, steps 3 to 5."""
    store.create_layer("taken", names=["name"])
    with pytest.raises(DuplicateID):
        store.create_layer("taken", template="nobody")
    with pytest.raises(DuplicateName):
        store.create_layer(names=["name"], template="nobody")
    with pytest.raises(LayerUnknown):
        store.create_layer("taken", "nobody", template="nobody")


def test_what_the_driver_refuses_says_what_was_being_made(store):
    """§4.3, step 8."""
    store.create_layer("old")
    for more, what in (
        ({}, "read-write layer with"),
        ({"writable": False}, "read-only layer with"),
        ({"template": "old"}, 'copy of template layer "old" with'),
    ):
        with pytest.raises(DriverError, match=f'^creating {what} ID "new": '):
            store.create_layer("new", storage_options={"odd": "1"}, **more)


def test_a_template_copy_outlives_the_template(store):
    """Whatever the driver does to make it."""
    fill(store, id="base")
    fill(store, CHANGES, id="template", parent="base")
    store.create_layer("copy", "base", template="template")
    store.create_layer("child", "copy")
    shown = set(os.listdir(store.mount("child")))
    store.unmount("child")
    changes = store.changes("template")
    store.delete_layer("template")
    assert set(os.listdir(store.mount("child"))) == shown
    assert store.changes("copy") == changes
    assert diff_of(store, "copy") == CHANGES
    assert store.check().healthy


def test_a_template_that_changes_while_it_is_copied(store, monkeypatch):
    """What is recorded of the copy is what it has, or there is none."""
    fill(store, id="template")
    durable = store.graph_driver.make_durable

    def change_first(prepared):
        monkeypatch.undo()
        store.apply_diff("template", io.BytesIO(CHANGES))
        durable(prepared)

    monkeypatch.setattr(store.graph_driver, "make_durable", change_first)
    with pytest.raises(StorageError, match="the template of layer copy changed meanwhile"):
        store.create_layer("copy", template="template")
    assert ids(store.layers()) == store.storage_layers() == ["template"]


def test_a_template_copy_inherits_what_describes_the_content(store):
    """Rows 41 and 42."""
    base = store.create_layer("base")
    template = fill(
        store,
        gzip.compress(BASE),
        parent=base.id,
        names=["template"],
        flags={"colour": "red"},
        big_data=[("blob", b"data")],
    )
    store.set_metadata(template.id, "meta")
    copy = store.create_layer(parent=base.id, template="template")
    template = store.layer(template.id)
    assert copy.diff == template.diff
    assert copy.diff.compression is Compression.GZIP
    assert copy.diff.uids == (0, 1000)
    assert copy.metadata == "meta"
    assert (copy.names, copy.flags, copy.big_data) == ((), {}, ())
    assert diff_of(store, copy.id, compression=Compression.NONE) == BASE


def test_maps_are_inherited_per_kind(store, unshifted):
    """Row 43."""
    base = store.create_layer(maps=SHIFT)
    other = (IDMapEntry(0, 300000, 1000),)
    child = store.create_layer(parent=base.id, maps=MapOptions(uids=other))
    assert child.maps.uids == other
    assert child.maps.gids == SHIFT.gids


def test_host_flags_drop_the_parents_map_and_restore_owners(store, unshifted):
    """Row 44."""
    base = fill(store, maps=SHIFT)
    note = os.stat(path_in(store, base.id, "home/user/note"))
    assert (note.st_uid, note.st_gid) == (101000, 201001)
    child = store.create_layer(parent=base.id, maps=MapOptions(host_uids=True, host_gids=True))
    assert not child.maps
    path = store.mount(child.id)
    note = os.stat(path / "home/user/note")
    store.unmount(child.id)
    assert (note.st_uid, note.st_gid) == (1000, 1001)


def test_a_map_without_root_is_refused_and_leaves_nothing(store, unshifted):
    """Row 45."""
    bad = MapOptions(uids=(IDMapEntry(5, 1000, 10),), gids=(IDMapEntry(5, 1000, 10),))
    with pytest.raises(StorageError, match="container ID 0 cannot be mapped to a host ID"):
        store.create_layer("new", maps=bad)
    assert ids(store.layers()) == []
    assert store.storage_layers() == []


def test_a_plain_import_has_one_digest_and_one_size(store):
    """Row 46."""
    diff = fill(store).diff
    assert diff.compressed_digest == diff.uncompressed_digest == sha256(BASE)
    assert diff.compressed_size == diff.uncompressed_size == len(BASE)
    assert diff.compression is Compression.NONE


@pytest.mark.parametrize(
    ("compress", "number"),
    [
        (bz2.compress, 1),
        (gzip.compress, 2),
        (lzma.compress, 3),
        (zstandard.ZstdCompressor().compress, 4),
    ],
    ids=["bzip2", "gzip", "xz", "zstd"],
)
def test_compressed_imports(store, compress, number):
    """Rows 47, 65 and 66. bzip2 and xz are read, never written."""
    blob = compress(BASE)
    layer = fill(store, blob)
    assert layer.diff.compression == number
    assert layer.diff.compressed_digest == sha256(blob)
    assert layer.diff.compressed_size == len(blob)
    assert layer.diff.uncompressed_digest == sha256(BASE)
    assert layer.diff.uncompressed_size == len(BASE)
    if number in (1, 3):
        with pytest.raises(UnsupportedCompression):
            diff_of(store, layer.id)
    else:
        magic = {2: b"\x1f\x8b\x08", 4: b"\x28\xb5\x2f\xfd"}[number]
        assert diff_of(store, layer.id).startswith(magic)
    assert diff_of(store, layer.id, compression=Compression.NONE) == BASE


def test_owner_lists_are_sorted_and_ignore_whiteouts(store):
    """Row 48."""
    data = archive(
        [
            Member("b", b"1", uid=2000, gid=7),
            Member("a", b"2", uid=30, gid=9),
            Member("c", b"3", uid=30, gid=7),
            Member(".wh.gone", uid=666, gid=666),
        ]
    )
    diff = fill(store, data).diff
    assert (diff.uids, diff.gids) == ((30, 2000), (7, 9))


def test_given_digests_replace_computed_ones(store):
    """Rows 49 and 50. For a stream that is not compressed the given digest is its DiffID too."""
    given = ApplyOptions(original_digest=digest("a"), original_size=12345)
    diff = fill(store, options=given).diff
    assert diff.compressed_digest == diff.uncompressed_digest == digest("a")
    assert (diff.compressed_size, diff.uncompressed_size) == (12345, len(BASE))
    diff = fill(store, gzip.compress(BASE), options=given).diff
    assert (diff.compressed_digest, diff.uncompressed_digest) == (digest("a"), sha256(BASE))
    hint = ApplyOptions(uncompressed_digest=digest("b"))
    assert fill(store, gzip.compress(BASE), options=hint).diff.uncompressed_digest == digest("b")


def test_given_digests_of_other_algorithms_are_ignored(store):
    """Row 51. The size that came with one counts all the same (semantics §2.9)."""
    given = ApplyOptions(
        original_digest="sha512:" + "a" * 128,
        original_size=12345,
        uncompressed_digest="sha512:" + "b" * 128,
    )
    diff = fill(store, options=given).diff
    assert diff.compressed_digest == diff.uncompressed_digest == sha256(BASE)
    assert diff.compressed_size == 12345


def test_an_empty_stream_is_an_archive(store):
    """Row 52."""
    diff = fill(store, b"").diff
    assert diff.compressed_digest == diff.uncompressed_digest == NOTHING
    assert (diff.compressed_size, diff.uncompressed_size) == (0, 0)


def test_a_garbage_stream_leaves_no_layer(store):
    """Row 53."""
    with pytest.raises(ArchiveError):
        fill(store, noise(), id="new", names=["n"])
    assert ids(store.layers()) == store.storage_layers() == []
    assert fill(store, id="new", names=["n"]).id == "new"


@pytest.mark.parametrize("damage", ["noise", "cut"])
def test_garbage_applied_to_a_layer_leaves_it_as_it_was(store, damage):
    """Row 54. All of it, where the original leaves half of the archive extracted."""
    layer = fill(store, big_data=[("blob", b"x")])
    before = store.layer(layer.id), diff_of(store, layer.id), store.changes(layer.id)
    bad = noise() if damage == "noise" else archive([Member("new", b"x" * 5000)])[:3000]
    with pytest.raises(ArchiveError):
        store.apply_diff(layer.id, io.BytesIO(bad))
    assert (store.layer(layer.id), diff_of(store, layer.id), store.changes(layer.id)) == before
    assert store.check().layers == {}
    store.apply_diff(layer.id, io.BytesIO(CHANGES))
    assert diff_of(store, layer.id) == CHANGES


def test_the_record_says_what_was_applied_last(store):
    """Row 55. What the first archive held and the second does not name stays in the tree."""
    layer = fill(store)
    diff = store.apply_diff(layer.id, io.BytesIO(gzip.compress(CHANGES)))
    assert store.layer(layer.id).diff == diff
    assert diff.uncompressed_digest == sha256(CHANGES)
    assert diff.compression is Compression.GZIP
    assert diff_of(store, layer.id, compression=Compression.NONE) == CHANGES
    path = store.mount(layer.id)
    try:
        assert (path / "usr/bin/tool").read_bytes() == b"#!/bin/sh\n" * 50
        assert (path / "etc/hosts").exists()
        assert not (path / "etc/shadow").exists()
    finally:
        store.unmount(layer.id)


def test_a_mounted_layer_takes_an_archive_too(store):
    """Row 55, mounted: applied in place, because its tree cannot be exchanged."""
    layer = store.create_layer()
    path = store.mount(layer.id)
    store.apply_diff(layer.id, io.BytesIO(BASE))
    store.unmount(layer.id)
    assert diff_of(store, layer.id) == BASE
    assert path.exists()


def test_applying_to_an_unknown_layer(store):
    """Row 56; layers of additional stores are in ``test_checklist_several.py``."""
    with pytest.raises(LayerUnknown):
        store.apply_diff("nobody", io.BytesIO(BASE))


def test_an_empty_blob_name_leaves_no_layer(store):
    """Row 57."""
    with pytest.raises(InvalidBigDataName):
        store.create_layer("new", big_data=[("good", b"1"), ("", b"2")])
    assert ids(store.layers()) == []


def test_digest_searches_find_all_in_order(store):
    """Row 58."""
    first = fill(store)
    store.create_layer()
    second = fill(store, gzip.compress(BASE))
    copy = store.create_layer(template=first.id)
    assert ids(store.layers_by_uncompressed_digest(sha256(BASE))) == [first.id, second.id, copy.id]
    assert ids(store.layers_by_compressed_digest(sha256(BASE))) == [first.id, copy.id]


@pytest.mark.parametrize("which", ["compressed", "uncompressed", "toc"])
def test_digest_searches_without_result(store, which):
    """Rows 59 and 60."""
    search = getattr(store, f"layers_by_{which}_digest")
    with pytest.raises(LayerUnknown):
        search(digest("d"))
    for malformed in ("", "nonsense", "sha256:12", "md5:" + "a" * 32):
        with pytest.raises(InvalidDigest):
            search(malformed)


def test_a_deleted_layer_is_no_longer_found_by_digest(store):
    """Row 61."""
    first, second = fill(store), fill(store)
    store.delete_layer(first.id)
    assert ids(store.layers_by_uncompressed_digest(sha256(BASE))) == [second.id]
    store.delete_layer(second.id)
    with pytest.raises(LayerUnknown):
        store.layers_by_uncompressed_digest(sha256(BASE))


def test_layer_size_is_the_recorded_one(store):
    """Rows 62 and 63."""
    assert store.layer_size(fill(store, gzip.compress(BASE)).id) == len(BASE)
    assert store.layer_size(store.create_layer().id) == -1
    with pytest.raises(LayerUnknown):
        store.layer_size("nobody")


def test_an_imported_layer_is_exported_bit_for_bit(store):
    """Row 64."""
    odd = archive([folder("d", mode=0o2755), Member("d/ü", b"x", mtime=1.5)]) + b"tail" * 700
    base = fill(store)
    assert diff_of(store, base.id) == BASE
    assert diff_of(store, fill(store, odd, parent=base.id).id) == odd


def test_changes_of_a_child(store):
    """Row 67."""
    child = store.create_layer(parent=fill(store).id)
    path = store.mount(child.id)
    (path / "etc/passwd").write_bytes(b"changed")
    (path / "var/empty/new").write_bytes(b"added")
    (path / "etc/shadow").unlink()
    store.unmount(child.id)
    found = {(c.path.decode(), c.kind) for c in store.changes(child.id)}
    assert found == {
        ("/etc", ChangeKind.MODIFY),
        ("/etc/passwd", ChangeKind.MODIFY),
        ("/etc/shadow", ChangeKind.DELETE),
        ("/var", ChangeKind.MODIFY),
        ("/var/empty", ChangeKind.MODIFY),
        ("/var/empty/new", ChangeKind.ADD),
    } or found == {
        ("/etc", ChangeKind.MODIFY),
        ("/etc/passwd", ChangeKind.MODIFY),
        ("/etc/shadow", ChangeKind.DELETE),
        ("/var/empty", ChangeKind.MODIFY),
        ("/var/empty/new", ChangeKind.ADD),
    }
    assert store.diff_size(child.id) >= len(b"changed") + len(b"added")


def test_an_unknown_reference_means_the_parent(store):
    """Row 68 (Q-12, kept)."""
    child = fill(store, CHANGES, parent=fill(store).id)
    assert store.changes(child.id, "nobody") == store.changes(child.id)
    assert store.diff_size(child.id, "nobody") == store.diff_size(child.id)
    assert diff_of(store, child.id, from_="nobody") == CHANGES


def test_an_unknown_reference_without_a_parent_fails_in_the_driver(store):
    """Row 69."""
    base = fill(store)
    for call in (store.changes, store.diff_size):
        with pytest.raises(DriverError):
            call(base.id, "nobody")
    with pytest.raises(DriverError):
        diff_of(store, base.id, from_="nobody")


def test_differences_of_unknown_layers(store):
    """Row 70. Images and containers are not accepted, a container's layer is."""
    image = store.create_image(names=["image"])
    box = store.create_container(layer_id="its-layer", names=["box"])
    for key in ("nobody", image.id, box.id, "image", "box"):
        for call in (store.changes, store.diff_size):
            with pytest.raises(LayerUnknown):
                call(key)
        with pytest.raises(LayerUnknown):
            diff_of(store, key)
    assert store.changes("its-layer") == []


def test_an_export_in_progress_blocks_nobody(store):
    """Row 71, changed on purpose: readers hold no lock, so writers need not wait for them."""
    layer = fill(store, archive([Member("big", os.urandom(3 << 20))]))
    started, go_on, made = threading.Event(), threading.Event(), []

    class Slow:
        def write(self, data):
            started.set()
            assert go_on.wait(30)
            return len(data)

    reader = threading.Thread(target=store.diff, args=(layer.id, Slow()))
    reader.start()
    assert started.wait(30)
    writer = threading.Thread(target=lambda: made.append(store.create_layer()))
    writer.start()
    writer.join(30)
    go_on.set()
    reader.join(30)
    assert len(made) == 1


def test_owners_above_an_unmapped_layer(store):
    """Row 72."""
    assert store.layer_parent_owners(store.create_layer().id) == ([], [])
    with pytest.raises(LayerUnknown):
        store.layer_parent_owners("nobody")


def test_owners_above_a_mapped_layer(store, unshifted):
    """Rows 73 and 74. The directories above the mount point belong to the host's root."""
    layer = store.create_layer(maps=SHIFT)
    with pytest.raises(LayerNotMounted):
        store.layer_parent_owners(layer.id)
    store.mount(layer.id)
    try:
        uids, gids = store.layer_parent_owners(layer.id)
        assert 0 in uids
        assert 0 in gids
        assert uids == sorted(uids)
        assert gids == sorted(gids)
    finally:
        store.unmount(layer.id, force=True)


def test_staged_layers_need_a_driver_that_can(store, driver, tmp_path):
    """Row 75."""
    source = tmp_path / "source"
    source.mkdir()
    (source / "file").write_bytes(b"staged")
    if driver == "vfs":
        with pytest.raises(NotSupported):
            store.prepare_staged_layer(source)
        with pytest.raises(NotSupported):
            store.differ_target(store.create_layer("there").id)
        assert ids(store.layers()) == ["there"]
    else:
        with store.prepare_staged_layer(source) as staged:
            layer = store.apply_staged_layer(staged, id="new")
            with pytest.raises(StorageError, match="was applied or cleaned up already"):
                store.apply_staged_layer(staged, id="other")
        assert layer.id == "new"
