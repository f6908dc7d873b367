"""An extractor that leaves files to a builder where nothing depends on who makes them.

Rules of this module:

* Only plain files, with attributes that need no thought, whose content is in one piece of the
  stream, in a tree that was empty, whose names and modes are what is asked for.
* Whatever depends on a file that is perhaps not there yet waits for it (``settle``): a hard link to
  it, a path below it, a whiteout, new attributes of a directory that exists.
* A path with two names, and whatever is removed, make the order of entries count: from there on the
  builder is not used.
* Files that the builder did not make are made here in their order, by the way of all others. So
  errors are those of one process, and the first one is raised.
"""

from __future__ import annotations

from functools import partial

from cstorage.archive import beneath
from cstorage.archive.attributes import TIME_MAX_NS
from cstorage.archive.builder import Builder, Job
from cstorage.archive.extract import Extractor, refused, write_all
from journal.plain import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    from cstorage.archive.options import ApplyOptions
    from cstorage.archive.parents import Parent
    from cstorage.archive.reader import Member

_AS_IT_IS = (-1, -1)
_NAME_MAX = 255


class SharingExtractor(Extractor):
    """``share(builder, size)`` puts the present member's content into the builder's memory.

    It returns where; a negative number if it cannot, and then has taken nothing of the content.
    """

    def __init__(
        self,
        root_fd: int,
        options: ApplyOptions,
        write_content: Callable[[int, Member], None],
        share: Callable[[Builder, int], int],
        builder: Builder,
    ) -> None:
        super().__init__(root_fd, options, write_content)
        self._share = share
        self._helper = builder
        usable = (
            self._exact  # empty, that is: nothing has been made yet
            and not self._force
            and not options.ignore_chown_errors
            and _is_plain(self._parents.root)
        )
        self._builder = builder if usable else None
        self._known: Member | None = None
        self._owner = _AS_IT_IS  # of that one's files
        if usable:
            self._parents.watch()

    def close(self) -> None:
        self._helper.close()
        super().close()

    # -- files -----------------------------------------------------------------------------------

    def _regular(
        self, member: Member, name: bytes, directory: bytes, base: bytes, parent: Parent
    ) -> None:
        builder = self._builder
        if (
            builder is None
            or not builder.takes()
            or not self._hand_over(builder, member, name, directory, base, parent)
        ):
            super()._regular(member, name, directory, base, parent)

    def _hand_over(
        self,
        builder: Builder,
        member: Member,
        name: bytes,
        directory: bytes,
        base: bytes,
        parent: Parent,
    ) -> bool:
        """Leave the file to the builder; False if it must be made here."""
        if (
            member.xattrs is not None
            or member.sparse is not None
            or member.atime_ns is not None
            or not 0 <= member.mtime_ns <= TIME_MAX_NS
            or len(base) > _NAME_MAX
        ):
            return False
        start = 0
        if member.size:
            start = self._share(builder, member.size)
            if start < 0:
                return False
            self._count(member.size)
        self._know(member, base, parent)
        if builder.take(member, name, directory, base, parent.fd, self._owner, start):
            self.settle()
        return True

    def _know(self, member: Member, base: bytes, parent: Parent) -> None:
        """Find out who owns the files of this member, and of those that are alike."""
        owner = self._attributes.owner(member.uid, member.gid, base)
        if owner == (self._uid, self._gid) and not parent.set_group:
            owner = _AS_IT_IS
        self._known, self._owner = member, owner

    def place(
        self,
        member: Member,
        name: bytes,
        directory: bytes,
        base: bytes,
        parent: Parent,
        content: memoryview,
        at: int,
    ) -> None:
        builder = self._builder
        if builder is not None and (builder.room or builder.takes()):
            chunk: Any = content.obj
            if chunk is builder.chunk or builder.load(chunk):
                if member is not self._known:
                    self._know(member, base, parent)
                start = builder.base + at
                if builder.take(member, name, directory, base, parent.fd, self._owner, start):
                    self.settle()
                return
        super().place(member, name, directory, base, parent, content, at)

    # -- order -----------------------------------------------------------------------------------

    def settle(self) -> None:
        """Wait for the builder, and make what it did not."""
        builder = self._builder
        if builder is None:
            return
        for job in builder.drain():
            member, name, file = job
            present = member.mtime_ns, member.size
            *_, member.mtime_ns, _, member.size = file
            directory, _, base = name.rpartition(b"/")
            try:
                parent = self._parents.get(directory) or self._parent(directory, name)
                self._make_file(member, parent, base, partial(_write_job, builder, job))
            except OSError as error:
                raise refused(name, error) from error
            finally:
                member.mtime_ns, member.size = present  # of a file that may be just being made

    def _have(self, path: bytes) -> None:
        if self._builder is not None and self._builder.holds(path):
            self.settle()

    def _keep_order(self) -> None:
        """From now on the order of entries counts, or what a builder knows of the tree is void."""
        builder = self._builder
        if builder is not None:
            self.settle()
            self._builder = None
            builder.end()

    def _before_closing(self) -> None:
        if self._builder is not None:
            self._builder.flush()  # what it is sent names these descriptors


def _is_plain(root: int) -> bool:
    """Whether two names in the directory are two entries, with the modes that are asked for."""
    path = beneath.descriptor_path(root)
    if beneath.get_xattr(path, "system.posix_acl_default", follow=True) is not None:
        return False
    return not beneath.folds_case(root)


def _write_job(builder: Builder, job: Job, fd: int, _: Member) -> None:
    with builder.content(job) as view:
        write_all(fd, view)
