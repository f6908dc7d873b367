"""Several changes as one: one frame, or nothing at all."""

from __future__ import annotations

import io
import subprocess
import tarfile
import threading

import pytest

import cstorage
from cstorage.errors import ImageUnknown, LayerUnknown, NamesChanged, StorageError
from cstorage.model import Kind


@pytest.fixture
def store(tmp_path):
    with cstorage.open(tmp_path / "g", tmp_path / "r", driver="vfs") as opened:
        opened.create_image(id="old", names=["latest"])
        yield opened


def frames(store) -> int:
    return sum(frame.kind_name == "data" for frame in store._core.journal.frames())


def archive(name: str, text: bytes) -> io.BytesIO:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        info = tarfile.TarInfo(name)
        info.size = len(text)
        tar.addfile(info, io.BytesIO(text))
    out.seek(0)
    return out


def leftovers(tmp_path) -> list[str]:
    return [
        str(path)
        for folder in ("staging", "trash")
        if (tmp_path / "g" / folder).is_dir()
        for path in (tmp_path / "g" / folder).iterdir()
    ]


def test_everything_in_the_block_is_one_frame(store, tmp_path):
    before = frames(store)
    with store.transaction(reason="release") as tx:
        layer = tx.import_layer(archive("f", b"data"), id="layer")
        image = tx.create_image(layer=layer.id, big_data=[("note", b"bytes")])
        tx.point("latest", image.id, expected="old")
        tx.delete_image("old")
        tx.set_metadata(image.id, "text")
        assert tx.image("latest").id == image.id
        assert not tx.exists("old")
    assert frames(store) == before + 1
    assert store.image("latest").names == ("latest",)
    assert store.image_big_data("latest", "note") == b"bytes"
    assert (tmp_path / "g" / "vfs" / "dir" / "layer" / "f").read_bytes() == b"data"
    assert {entry.reason for entry in store.history(image.id)} == {"release"}
    assert leftovers(tmp_path) == []


def test_a_block_that_raises_has_changed_nothing(store, tmp_path):
    before = frames(store)
    store.image_directory("old")

    def fail() -> None:
        with store.transaction() as tx:
            tx.import_layer(archive("f", b"data"), id="layer")
            tx.create_image(id="new", big_data=[("note", b"bytes")])
            tx.delete_image("old")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert frames(store) == before
    assert store.image("latest").id == "old"
    assert not store.exists("layer")
    assert not (tmp_path / "g" / "vfs" / "dir" / "layer").exists()
    assert (tmp_path / "g" / "vfs-images" / "old" / "userdata").is_dir()
    assert leftovers(tmp_path) == []


def test_an_operation_that_fails_takes_back_only_itself(store):
    with store.transaction() as tx:
        tx.set_metadata("old", "one")
        with pytest.raises(LayerUnknown):
            tx.create_image(layer="nobody")
        with pytest.raises(StorageError):
            tx.delete_image("nobody")
        tx.add_names("old", ["more"])
    assert store.metadata("old") == "one"
    assert store.names("old") == ("more", "latest")


def test_names_are_compared_and_set(store):
    store.create_image(id="new")
    with pytest.raises(NamesChanged, match="'latest' belongs to old"), store.transaction() as tx:
        tx.point("latest", "new", expected="somebody else")
    with pytest.raises(NamesChanged), store.transaction() as tx:
        tx.point("free", "new", expected="old")
    with pytest.raises(NamesChanged), store.transaction() as tx:
        tx.set_names("old", ["x"], expected=["latest", "more"])
    assert store.image("latest").id == "old"
    with store.transaction() as tx:
        tx.point("free", "new", expected="")
        tx.point("latest", "new", expected="old")
        tx.set_names("old", ["x"], expected=[])
    assert store.names("new") == ("latest", "free")
    assert store.names("old") == ("x",)
    with store.transaction() as tx:
        assert tx.holder(Kind.IMAGE, "latest") == "new"


def test_others_see_nothing_of_it_until_it_ends(store, tmp_path):
    seen: list[str] = []
    with cstorage.open(tmp_path / "g", tmp_path / "r", driver="vfs", read_only=True) as other:
        with store.transaction() as tx:
            tx.create_image(id="new", names=["fresh"])
            with pytest.raises(ImageUnknown):
                other.image("fresh")
        seen.append(other.image("fresh").id)
    assert seen == ["new"]


def test_other_threads_wait_and_do_not_join(store):
    entered = threading.Event()

    def other() -> None:
        entered.set()
        store.create_image(id="theirs")

    thread = threading.Thread(target=other)

    def fail() -> None:
        with store.transaction() as tx:
            thread.start()
            entered.wait()
            tx.create_image(id="mine")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    thread.join()
    assert store.exists("theirs")
    assert not store.exists("mine")


def test_a_transaction_in_a_transaction_is_refused(store):
    with store.transaction() as tx:
        tx.set_metadata("old", "kept")
        with pytest.raises(StorageError, match="inside a transaction"), store.transaction():
            pass
    assert store.metadata("old") == "kept"


def run(command, tmp_path, script: str, *flags: str) -> subprocess.CompletedProcess[str]:
    words = [*command, "-g", tmp_path / "g", "-R", tmp_path / "r", "-s", "vfs", "batch", *flags]
    return subprocess.run(words, input=script, capture_output=True, text=True, check=False)


def test_batch_goes_on_after_a_failing_line(store, tmp_path, cstorage_command):
    script = (
        'create-layer -i a\nadd-names -n "two words" nope\n\n# no\n["set-metadata","-m","m","a"]\n'
    )
    done = run(cstorage_command, tmp_path, script)
    assert (done.returncode, done.stdout) == (1, "a\n")
    assert done.stderr.startswith("line 2: ")
    assert store.metadata("a") == "m"


def test_atomic_batch_is_all_or_nothing(store, tmp_path, cstorage_command):
    before = frames(store)
    script = "create-layer -i a\ncreate-image -i i a\nset-names -n latest i\ndelete-image old\n"
    done = run(cstorage_command, tmp_path, script + "add-names -n x nope\n", "--atomic")
    assert done.returncode == 1
    assert "line 5" in done.stderr
    assert frames(store) == before
    assert store.image("latest").id == "old"
    assert run(cstorage_command, tmp_path, script, "--atomic").returncode == 0
    assert frames(store) == before + 1
    assert store.image("latest").id == "i"


@pytest.mark.parametrize("line", ["mount a", "watch", "batch", "nonsense", '{"a": 1}', "'open"])
def test_atomic_batch_refuses_what_cannot_be_undone(store, tmp_path, cstorage_command, line):
    done = run(cstorage_command, tmp_path, f"create-layer -i a\n{line}\n", "--atomic", "--json")
    assert done.returncode == 1
    assert '"line":2,"status":1' in done.stdout
    assert not store.exists("a")
