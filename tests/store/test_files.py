"""Files without mounts: the recorded view is what a mount shows, and content is verified."""

from __future__ import annotations

import os
import stat
import tarfile

import pytest
from tars import Member, archive, folder

from cstorage.errors import ContentChanged, LayerUnknown
from cstorage.model import Change, ChangeKind
from cstorage.store.files import FilesUnrecorded, Found
from tests.store.place import fill

LINK, HARD = tarfile.SYMTYPE, tarfile.LNKTYPE

LOWER = archive(
    [
        folder("etc"),
        Member("etc/keep", b"keep\n"),
        Member("etc/gone", b"gone\n"),
        Member("etc/changed", b"old\n"),
        folder("opaque"),
        folder("opaque/deep"),
        Member("opaque/deep/hidden", b"hidden\n"),
        Member("opaque/early", b"lower\n"),
        folder("usr"),
        folder("usr/bin"),
        Member("usr/bin/tool", b"tool\n" * 1000, mode=0o4755, uid=3, gid=4),
        Member("bin", kind=LINK, link="usr/bin", mode=0o777),
        Member("was-a-folder/inside", b"x"),
        Member("loop", kind=LINK, link="loop", mode=0o777),
    ]
)
UPPER = archive(
    [
        folder("etc"),
        Member("etc/.wh.gone"),
        Member("etc/changed", b"new!\n"),
        Member("etc/first", b"shared\n"),
        Member("etc/second", kind=HARD, link="etc/first", mode=0o600),
        Member("etc/self", kind=LINK, link="/etc/../../etc/first", mode=0o777),
        folder("opaque"),
        Member("opaque/early", b"upper\n"),
        Member("opaque/.wh..wh..opq"),
        Member("opaque/late", b"late\n"),
        Member("was-a-folder", b"a file now\n"),
        Member("implied/by/file", b"f\n"),
        Member("\udcff\n", b"odd\n"),
    ]
)
NAMES = {
    b"bin", b"etc", b"etc/changed", b"etc/first", b"etc/keep", b"etc/second", b"etc/self",
    b"implied", b"implied/by", b"implied/by/file", b"loop", b"opaque", b"opaque/early",
    b"opaque/late", b"usr", b"usr/bin", b"usr/bin/tool", b"was-a-folder", b"\xff\n",
}  # fmt: skip


@pytest.fixture
def image(store):
    fill(store, LOWER, id="lower")
    fill(store, UPPER, id="upper", parent="lower")
    store.create_image(id="img", names=["the-image"], layer="upper")
    return store


def content(files, path):
    return b"".join(files.read(files.find(path)))


def real_file(image, driver, layer, path):
    inside = f"overlay/{layer}/diff" if driver == "overlay" else f"vfs/dir/{layer}"
    return image.graph_root / inside / path


class TestView:
    def test_it_has_what_whiteouts_and_opaque_marks_leave(self, image):
        files = image.files("the-image")
        walked = [found.path for found in files.walk(files.find())]
        assert walked[0] == b""
        assert set(walked[1:]) == NAMES
        assert len(walked) == len(NAMES) + 1

    def test_it_is_what_a_mount_shows(self, image):
        files = image.files("img")
        root = os.fsencode(image.mount_image("img"))
        try:
            for path, node in files.walk(files.find()):
                if not path:
                    continue
                info = os.lstat(os.path.join(root, path))
                assert (stat.S_IFMT(info.st_mode), info.st_uid, info.st_gid) == (
                    node.type, node.uid, node.gid,
                ), path  # fmt: skip
                if node.type == stat.S_IFLNK:
                    assert os.readlink(os.path.join(root, path)) == node.link
                else:
                    assert stat.S_IMODE(info.st_mode) == node.mode, path
                if node.type == stat.S_IFREG:
                    assert info.st_size == node.size
                    with open(os.path.join(root, path), "rb") as file:
                        assert file.read() == b"".join(files.read(Found(path, node))), path
            listed = {
                os.path.relpath(os.path.join(folder, name), root)
                for folder, folders, names in os.walk(root)
                for name in (*folders, *names)
            }
            assert listed == NAMES
        finally:
            image.unmount_image("img")

    def test_hard_links_are_one_file_whose_last_header_counts(self, image):
        files = image.files("img")
        first, second = files.view.find(b"etc/first").node, files.view.find(b"etc/second").node
        assert first is second
        assert first.mode == 0o600
        assert content(files, "etc/second") == b"shared\n"

    def test_a_layer_has_the_view_of_its_own_chain(self, image):
        assert content(image.files("lower"), "/etc/changed") == b"old\n"
        assert content(image.files("upper"), "/etc/changed") == b"new!\n"

    def test_a_whiteout_of_an_own_directory_leaves_what_its_archive_put_there(self, store):
        fill(store, archive([folder("d", mode=0o700), Member("d/low", b"l")]), id="a")
        fill(store, archive([Member("d/own", b"o"), Member(".wh.d")]), id="b", parent="a")
        files = store.files("b")
        assert [found.path for found in files.walk(files.find())] == [b"", b"d", b"d/own"]
        assert files.find("d").node.mode == 0o755
        assert files.layer_of(files.find("d")).id == "b"
        assert store.check().layers == {}

    def test_an_entry_below_a_link_of_its_own_layer_is_where_the_link_leads(self, store):
        link = Member("lib", kind=LINK, link="usr/lib", mode=0o777)
        members = [folder("usr"), folder("usr/lib"), link, Member("lib/f", b"f")]
        fill(store, archive(members), id="a")
        files = store.files("a")
        assert files.find("lib/f").path == b"usr/lib/f"
        assert content(files, "lib/f") == b"f"

    def test_an_entry_below_a_link_of_a_lower_layer_is_where_the_driver_puts_it(
        self, store, driver
    ):
        link = Member("lib", kind=LINK, link="usr/lib", mode=0o777)
        fill(store, archive([folder("usr"), folder("usr/lib"), link]), id="a")
        fill(store, archive([Member("lib/f", b"f")]), id="b", parent="a")
        files = store.files("b")
        expected = b"lib/f" if driver == "overlay" else b"usr/lib/f"
        assert files.find("lib/f").path == expected
        assert content(files, "lib/f") == b"f"
        root = store.mount("b")
        assert (root / os.fsdecode(expected)).read_bytes() == b"f"
        store.unmount("b")

    def test_a_whiteout_below_a_link_of_a_lower_layer_is_where_the_driver_puts_it(
        self, store, driver
    ):
        link = Member("lib", kind=LINK, link="usr/lib", mode=0o777)
        members = [folder("usr"), folder("usr/lib"), Member("usr/lib/f", b"f"), link]
        fill(store, archive(members), id="a")
        fill(store, archive([Member("lib/.wh.f")]), id="b", parent="a")
        files = store.files("b")
        root = store.mount("b")
        assert (root / "usr/lib/f").exists() == (driver == "overlay")
        assert (root / "lib").is_symlink() == (driver == "vfs")
        store.unmount("b")
        listed = [b"lib", b"usr", b"usr/lib"]
        if driver == "overlay":
            listed.append(b"usr/lib/f")
        assert [found.path for found in files.walk(files.find())][1:] == listed
        assert (files.find("lib", follow=False).node.type == stat.S_IFLNK) == (driver == "vfs")


class TestLookup:
    @pytest.mark.parametrize(
        ("path", "leads_to"),
        [
            ("/bin/tool", b"usr/bin/tool"),
            ("bin//./tool", b"usr/bin/tool"),
            ("../../bin/../bin/tool", b"usr/bin/tool"),
            ("etc/self", b"etc/first"),
            ("/", b""),
        ],
    )
    def test_links_are_resolved_inside_the_view(self, image, path, leads_to):
        assert image.files("img").find(path).path == leads_to

    def test_the_last_link_is_followed_only_if_asked_for_or_if_a_slash_follows(self, image):
        files = image.files("img")
        assert files.find("bin", follow=False).path == b"bin"
        assert files.find("bin/", follow=False).path == b"usr/bin"

    @pytest.mark.parametrize(
        ("path", "error", "text"),
        [
            ("etc/gone", FileNotFoundError, "No such file"),
            ("opaque/deep", FileNotFoundError, "No such file"),
            ("etc/keep/", NotADirectoryError, "Not a directory"),
            ("was-a-folder/inside", NotADirectoryError, "Not a directory"),
            ("loop", OSError, "Too many levels"),
        ],
    )
    def test_what_leads_nowhere_is_refused_as_the_system_does(self, image, path, error, text):
        with pytest.raises(error, match=text):
            image.files("img").find(path)

    def test_which_layer_a_path_comes_from(self, image):
        files = image.files("img")
        came = {path: files.layer_of(files.find(path)).id for path in (
            "etc", "etc/keep", "etc/changed", "opaque/early", "usr/bin/tool", "implied/by",
        )}  # fmt: skip
        assert came == {
            "etc": "upper", "etc/keep": "lower", "etc/changed": "upper", "opaque/early": "upper",
            "usr/bin/tool": "lower", "implied/by": "upper",
        }  # fmt: skip

    def test_an_exact_name_beats_the_beginning_of_an_id(self, image):
        fill(image, LOWER, id="image-like")
        image.create_image(id="other", names=["image"], layer="upper")
        assert image.files("image").layers[-1].id == "upper"
        assert image.files("image-").layers[-1].id == "image-like"

    def test_unknown_items_and_layers_without_a_list_are_named(self, image):
        with pytest.raises(LayerUnknown, match='"nosuch"'):
            image.files("nosuch")
        image.create_layer(id="bare", parent="upper")
        fill(image, archive([Member("f", b"f")]), id="above", parent="bare")
        with pytest.raises(FilesUnrecorded, match='"bare"'):
            image.files("above")


def answer(files, path, follow, whole):
    """What a path leads to, or the error, in a form that can be compared."""
    try:
        found = (files.view if whole else files).find(path, follow=follow)
    except OSError as error:
        return error.errno
    node = found.node
    return (
        found.path, node.type, node.mode, node.uid, node.gid, node.size, node.mtime_ns, node.link,
        node.digest, node.device, node.xattrs, node.implied, files.layer_of(found).id,
        files.algorithm(node),
    )  # fmt: skip


MORE = archive(
    [
        Member("usr/bin/.wh.tool"),
        Member("usr/bin/tool/under", b"a file became a folder that nobody lists"),
        Member("etc/far", kind=LINK, link="../bin/../etc/changed", mode=0o777),
        Member("etc/up", kind=LINK, link="..", mode=0o777),
        Member("one", b"1", mode=0o600),
        Member("two", kind=HARD, link="one", mode=0o640),
        Member("three", kind=HARD, link="./two", mode=0o644),
        Member(".wh.opaque"),
        Member("implied/.wh..wh..opq"),
        folder("implied"),
    ]
)
TANGLED = archive(
    [folder("etc"), Member("d", kind=LINK, link="etc", mode=0o777), Member("d/keep", b"by link")]
)
ASKED = (
    *NAMES, b"", b"/", b"etc/", b"etc/gone", b"nowhere", b"etc/keep/x", b"bin/tool", b"/etc/../bin",
    b"etc/self/", b"etc/far", b"etc/up/bin/tool", b"etc/up/etc/up/usr", b"usr/bin/tool/under",
    b"one", b"two", b"three", b"opaque/deep/hidden", b"..//etc/./first", b"d/keep",
    b"was-a-folder/inside", b"usr/../usr/bin/tool", b"nowhere/../etc/keep",
)  # fmt: skip


@pytest.mark.parametrize("follow", [True, False])
@pytest.mark.parametrize("more", [(), (MORE,), (MORE, TANGLED)])
def test_one_question_is_answered_as_from_the_whole_view(image, more, follow):
    """Without making a tree of all files; see ``files.Wanted``."""
    top = "upper"
    for number, data in enumerate(more):
        top = fill(image, data, id=f"more{number}", parent=top).id
    whole = image.files(top)
    for path in ASKED:
        expected = answer(whole, path, follow, True)
        assert answer(image.files(top), path, follow, False) == expected, path


def test_one_question_makes_no_tree_of_all_files(image):
    files = image.files("img")
    assert files.find("bin/tool").path == b"usr/bin/tool"
    assert files._view is None


class TestContent:
    def test_a_changed_file_is_reported_after_its_bytes(self, image, driver):
        real_file(image, driver, "lower", "etc/keep").write_bytes(b"KEEP\n")
        files = image.files("img")
        pieces = files.read(files.find("etc/keep"))
        assert next(pieces) == b"KEEP\n"
        with pytest.raises(ContentChanged, match=r'/etc/keep of layer "lower".*digest'):
            next(pieces)

    def test_a_file_of_another_size_is_reported_before_any_byte(self, image, driver):
        real_file(image, driver, "lower", "etc/keep").write_bytes(b"much longer\n")
        files = image.files("img")
        with pytest.raises(ContentChanged, match="12 bytes instead of 5"):
            next(files.read(files.find("etc/keep")))

    def test_a_missing_file_is_reported(self, image, driver):
        real_file(image, driver, "lower", "etc/keep").unlink()
        files = image.files("img")
        with pytest.raises(ContentChanged, match=r'/etc/keep of layer "lower"'):
            next(files.read(files.find("etc/keep")))

    def test_a_link_put_in_its_place_leads_nowhere_outside(self, image, driver, tmp_path):
        (tmp_path / "secret").write_bytes(b"keep\n")
        there = real_file(image, driver, "lower", "etc/keep")
        there.unlink()
        there.symlink_to(tmp_path / "secret")
        files = image.files("img")
        with pytest.raises(ContentChanged):
            next(files.read(files.find("etc/keep")))

    def test_only_regular_files_have_content(self, image):
        files = image.files("img")
        with pytest.raises(IsADirectoryError):
            next(files.read(files.find("etc")))
        with pytest.raises(OSError, match="Invalid argument"):
            next(files.read(files.find("bin", follow=False)))


class TestComparison:
    def test_changes_between_two_views(self, image):
        add, modify, delete = ChangeKind.ADD, ChangeKind.MODIFY, ChangeKind.DELETE
        assert list(image.changes_between("lower", "img")) == [
            Change(b"/etc", modify),
            Change(b"/etc/changed", modify),
            Change(b"/etc/first", add),
            Change(b"/etc/gone", delete),
            Change(b"/etc/second", add),
            Change(b"/etc/self", add),
            Change(b"/implied", add),
            Change(b"/implied/by", add),
            Change(b"/implied/by/file", add),
            Change(b"/opaque", modify),
            Change(b"/opaque/deep", delete),
            Change(b"/opaque/early", modify),
            Change(b"/opaque/late", add),
            Change(b"/was-a-folder", modify),
            Change(b"/\xff\n", add),
        ]
        assert list(image.changes_between("img", "the-image")) == []

    def test_equal_size_and_time_do_not_hide_other_bytes(self, store):
        fill(store, archive([Member("f", b"one")]), id="a")
        fill(store, archive([Member("f", b"two")]), id="b")
        assert list(store.changes_between("a", "b")) == [Change(b"/f", ChangeKind.MODIFY)]
