"""Building a tree from archive members, one system call at a time, never outside the tree.

Rules of this module:

* The last component of a name is created with ``O_EXCL``/``O_NOFOLLOW`` or its equivalent in a
  parent found by ``parents``. Whatever another process plants meanwhile, nothing is created,
  changed, linked or removed outside the tree.
* An existing path is kept if both are directories, otherwise removed first (drivers-and-formats
  §6.4). The same path twice in one archive is refused.
* Order per entry: create, owner, mode, times, extended attributes (§6.6). Directory times and
  default ACLs wait for the end: creating entries would change the first and obey the second.
* A whiteout speaks of the layers below, never of this archive's own entries (§9.5). A directory
  that follows its own whiteout is made opaque (§3.7), or the lower content would shine through.

Malformed members raise ``ArchiveError``; a failing disk or a missing privilege ``OSError``.
"""

from __future__ import annotations

import errno
import os
import stat
import sys

from cstorage.archive import beneath
from cstorage.archive import header as tar
from cstorage.archive import whiteouts as wh
from cstorage.archive.attributes import TIME_MAX_NS, Attributes, Explained, times
from cstorage.archive.names import clean
from cstorage.archive.parents import Parent, Parents
from cstorage.archive.reader import Member, shown
from cstorage.archive.walk import open_child
from cstorage.archive.whiteouts import WhiteoutFormat
from cstorage.errors import ArchiveBreakout, ArchiveError, ArchiveLimitExceeded
from journal.plain import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from cstorage.archive.options import ApplyOptions

_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_OPEN_ANY = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
_MAJOR_END, _MINOR_END = 1 << 12, 1 << 20
BLOCK = 4096  # what files occupy is counted in these
_LONG_LINK = 60  # bytes from which on a symbolic link's target needs a block
_INSIDE_WHITEOUT = b"/" + wh.PREFIX

SKIPPED, PRESENT, WHITEOUT, OPAQUE = -1, 0, 1, 2
"""What ``Extractor.add`` did; but for the first, the values of ``manifest.Mark``."""

# Errors that only a malformed or hostile archive causes.
_ARCHIVE_ERRNOS = frozenset((
    errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG, errno.EEXIST, errno.ENOENT, errno.EISDIR,
    errno.EMLINK, errno.EINVAL, errno.ENOTEMPTY, errno.EXDEV, errno.EFBIG, errno.EOVERFLOW,
))  # fmt: skip


class Extractor:
    """Applies members to the tree below ``root_fd``.

    ``write_content(fd, member)`` is called to fill a newly created regular file.
    """

    def __init__(
        self, root_fd: int, options: ApplyOptions, write_content: Callable[[int, Member], None]
    ) -> None:
        self._parents = Parents(root_fd)
        self._attributes = Attributes(options)
        self._limits = options.limits
        self._write_content = write_content
        self._overlay = options.whiteouts == WhiteoutFormat.OVERLAY
        self._in_userns = options.in_userns
        self._force = options.force_mask is not None
        self._uid, self._gid = os.geteuid(), os.getegid()
        # Without privileges a read-only directory could not be filled: its mode waits too.
        self._late_modes = self._uid != 0
        self._directories: list[tuple[bytes, int, int, int]] = []  # path, atime, mtime, mode
        # Paths so far, by their 64-bit hashes: half the memory. That two of a million paths share
        # one has a probability below 1 to 10 million; the archive would be refused.
        self._seen: set[int] = set()
        self._exact = not beneath.list_names(self._parents.root)
        self._content_size = 0
        self.disk_size = 0
        """Bytes that the tree occupies, as ``du`` counts; complete after ``finish``."""
        self._opaque_xattr = wh.OPAQUE_XATTRS[options.in_userns]
        self.entries = 0

    def close(self) -> None:
        self._parents.close()

    # -- for files that another process makes (``handover``) -------------------------------------

    def settle(self) -> None:
        """Have all files of earlier entries, or raise the error of the first that is missing."""

    def _have(self, path: bytes) -> None:
        """Have ``path`` and those above it, as far as they are files of earlier entries."""

    def _keep_order(self) -> None:
        """From now on make each file when its entry comes."""

    def _before_closing(self) -> None:
        """Directories that were open are about to be closed."""

    # -- one member ----------------------------------------------------------------------------

    def add(self, member: Member) -> tuple[bytes, int]:
        """Apply one member. Returns the path it speaks of and what was done (``PRESENT``…)."""
        name = clean(member.name)
        if member.type == tar.GLOBAL:
            return name, SKIPPED
        self.entries += 1
        limits = self._limits
        if (
            len(name) > limits.max_name
            or name.count(b"/") >= limits.max_depth
            or (limits.max_entries and self.entries > limits.max_entries)
        ):
            self._beyond_limits(name)
        known = hash(name)
        if known in self._seen:
            raise ArchiveError(f"{shown(name)}: duplicates of file paths not supported")
        self._seen.add(known)
        directory, _, base = name.rpartition(b"/")
        try:
            if b".wh." in name:
                if name.startswith(wh.META_PREFIX) and name != wh.OPAQUE:
                    return name, SKIPPED
                if directory.startswith(wh.PREFIX) or _INSIDE_WHITEOUT in directory:
                    raise ArchiveError(f"{shown(name)}: an entry below a whiteout")
                if base.startswith(wh.PREFIX):
                    return self._whiteout(member, name, directory, base)
            if base:
                self._entry(member, name, directory, base)
            else:
                self._root_entry(member)
        except OSError as error:
            raise refused(name, error) from error
        finally:
            self._tidy()
        return name, PRESENT

    def _tidy(self) -> None:
        if self._parents.retired:
            self._before_closing()
            self._parents.tidy()

    def follow(self, name: bytes, members: Iterable[tuple[Member, bytes, memoryview, int]]) -> None:
        """Make plain files in the directory of ``name``, a file that was just added.

        ``members``: each member, the last component of its name, its content, and where in the
        chunk that is; they differ from the one before in name, size and time only. Whenever the
        next one is asked for, the one before was made. Ends at the first one of which more is
        to be thought.
        """
        parents, seen, limits = self._parents, self._seen, self._limits
        directory = name.rpartition(b"/")[0]
        parent = parents.get(directory)
        if parent is None or b".wh." in directory:
            return
        above = directory + b"/" if directory else b""
        most = limits.max_name - len(above)
        left = limits.max_entries - self.entries if limits.max_entries else sys.maxsize
        place, retired = self.place, parents.retired
        made = size = occupied = 0
        try:
            for member, base, content, at in members:
                path = above + base
                known = hash(path)
                if (
                    b"/" in base
                    or base.startswith(b".")  # nor a whiteout, then
                    or not 0 < len(base) <= most
                    or made >= left
                    or known in seen
                    or retired
                ):
                    return
                seen.add(known)
                made += 1
                try:
                    place(member, path, directory, base, parent, content, at)
                except OSError as error:
                    raise refused(path, error) from error
                length = len(content)
                size += length
                occupied += -(-length // BLOCK)
        finally:
            self.entries += made
            self._content_size += size
            self.disk_size += occupied * BLOCK
            self._tidy()

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
        """Make a plain file; its content is in a chunk of the stream ``at`` that place."""
        del name, directory, at
        self._make_file(member, parent, base, lambda fd, _: write_all(fd, content))

    def _beyond_limits(self, name: bytes) -> NoReturn:
        limits = self._limits
        if len(name) > limits.max_name or name.count(b"/") >= limits.max_depth:
            raise ArchiveLimitExceeded(
                f"{shown(name)}: path of {len(name)} bytes in {name.count(b'/') + 1} components; "
                f"at most {limits.max_name} and {limits.max_depth} are accepted"
            )
        raise ArchiveLimitExceeded(
            f"the archive has more than {limits.max_entries} entries",
            hint="raise --max-entries if this archive is trusted",
        )

    def _entry(self, member: Member, name: bytes, directory: bytes, base: bytes) -> None:
        kind = member.type
        parent = self._parents.get(directory) or self._parent(directory, name)
        if kind == tar.REGTYPE:
            self._regular(member, name, directory, base, parent)
        elif kind == tar.DIRTYPE:
            self._directory(member, name, parent.fd, base)
        elif kind == tar.SYMTYPE:
            self._symlink(member, parent.fd, base)
        elif kind == tar.LNKTYPE:
            self._hard_link(member, name, parent.fd, base)
        elif kind in (tar.CHRTYPE, tar.BLKTYPE, tar.FIFOTYPE):
            self._special(member, parent.fd, base)
        else:
            raise ArchiveError(f"{shown(name)}: unhandled tar header type {chr(kind)!a}")

    def _regular(
        self, member: Member, name: bytes, directory: bytes, base: bytes, parent: Parent
    ) -> None:
        del name, directory
        self._make_file(member, parent, base, self._write_content)
        self._count(member.size)

    def _count(self, size: int) -> None:
        self._content_size += size
        self.disk_size += -(-size // BLOCK) * BLOCK

    def _make_file(
        self, member: Member, parent: Parent, base: bytes, write: Callable[[int, Member], None]
    ) -> None:
        mode = member.mode & 0o7777
        fd = self._create(parent.fd, base, mode & 0o777)
        try:
            if member.size:
                write(fd, member)
            attributes = self._attributes
            if self._force:
                attributes.override(fd, member, "file")
            else:
                uid, gid = attributes.owner(member.uid, member.gid, base)
                if uid != self._uid or gid != self._gid or parent.set_group:
                    attributes.chown(fd, uid, gid, base)
                # Usually right already: looking costs a fifth of setting.
                if os.fstat(fd).st_mode & 0o7777 != mode:
                    os.fchmod(fd, mode)
            mtime = member.mtime_ns
            if member.atime_ns is None and 0 <= mtime <= TIME_MAX_NS:
                os.utime(fd, ns=(mtime, mtime))
            else:
                os.utime(fd, ns=times(member))
            if member.xattrs:
                attributes.set_xattrs(fd, member, base)
        finally:
            os.close(fd)

    def _create(self, parent: int, base: bytes, mode: int) -> int:
        try:
            return os.open(base, _CREATE, mode, dir_fd=parent)
        except FileExistsError:
            self._remove(parent, base)
            return os.open(base, _CREATE, mode, dir_fd=parent)

    def _directory(self, member: Member, name: bytes, parent: int, base: bytes) -> None:
        opaque = False
        enter = open_child
        try:
            os.mkdir(base, 0o700, dir_fd=parent)
        except FileExistsError:
            self.settle()  # its set-group bit decides about the files in it
            enter = beneath.open_folder  # it may be a mount
            info = beneath.stat_in(parent, base)
            if info is None or not stat.S_ISDIR(info.st_mode):
                opaque = self._overlay and info is not None and wh.is_whiteout_device(info)
                self._remove(parent, base)
                os.mkdir(base, 0o700, dir_fd=parent)
        fd = enter(parent, base)
        try:
            self._describe_directory(fd, member, name)
            if opaque:
                self._make_opaque(fd)
        finally:
            os.close(fd)

    def _root_entry(self, member: Member) -> None:
        """``./`` describes the root for drivers without overlay only; ``/`` always does (§6.3)."""
        if member.type != tar.DIRTYPE:
            raise ArchiveError(f"{shown(member.name)}: the layer's root must be a directory")
        if self._overlay and not member.name.startswith(b"/"):
            return
        fd = open_child(self._parents.root, b".")
        try:
            self._describe_directory(fd, member, b"")
        finally:
            os.close(fd)

    def _describe_directory(self, fd: int, member: Member, name: bytes) -> None:
        mode = member.mode & 0o7777
        attributes = self._attributes
        if self._force:
            attributes.override(fd, member, "dir")
        else:
            attributes.chown(fd, *attributes.owner(member.uid, member.gid, name), name)
            os.fchmod(fd, mode | 0o700 if self._late_modes else mode)
        self._parents.mode_changed(name)
        self._directories.append((name, *times(member), mode))
        if member.xattrs:
            attributes.set_xattrs(fd, member, name, directory=True)

    def _symlink(self, member: Member, parent: int, base: bytes) -> None:
        target = member.linkname
        if not target or b"\0" in target:
            raise ArchiveError(f"{shown(member.name)}: symbolic link without a usable target")
        try:
            os.symlink(target, base, dir_fd=parent)
        except FileExistsError:
            self._remove(parent, base)
            os.symlink(target, base, dir_fd=parent)
        self._content_size += len(target)
        if len(target) >= _LONG_LINK:
            self.disk_size += BLOCK
        attributes = self._attributes
        if not self._force:
            uid, gid = attributes.owner(member.uid, member.gid, base)
            attributes.chown_entry(parent, base, uid, gid)
        os.utime(base, ns=times(member), dir_fd=parent, follow_symlinks=False)
        if member.xattrs:
            attributes.set_xattrs(beneath.descriptor_path(parent, base), member, base)

    def _hard_link(self, member: Member, name: bytes, parent: int, base: bytes) -> None:
        target = clean(member.linkname)
        directory, _, target_base = target.rpartition(b"/")
        if not target_base or target == name:
            raise ArchiveError(f"{shown(name)}: hard link to itself or to the layer's root")
        self._have(target)
        try:
            source = self._parents.find(directory).fd
            if self._parents.aliased:
                self._keep_order()
        except OSError as error:
            raise refused(name, error, f"its target {shown(target)}") from error
        info = beneath.stat_in(source, target_base)
        if info is None:
            raise ArchiveError(f"{shown(name)}: hard link to missing {shown(target)}")
        if stat.S_ISDIR(info.st_mode):
            raise ArchiveError(f"{shown(name)}: hard link to directory {shown(target)}")
        try:
            self._link(source, target_base, parent, base)
        except FileExistsError:
            own = beneath.stat_in(parent, base)
            if own is None or (own.st_dev, own.st_ino) != (info.st_dev, info.st_ino):
                self._remove(parent, base)
                self._link(source, target_base, parent, base)
        self._describe_link(member, parent, base, info)

    @staticmethod
    def _link(source: int, target: bytes, parent: int, base: bytes) -> None:
        os.link(target, base, src_dir_fd=source, dst_dir_fd=parent, follow_symlinks=False)

    def _describe_link(
        self, member: Member, parent: int, base: bytes, info: os.stat_result
    ) -> None:
        """A hard-link entry's attributes go to the shared inode: the last one wins (§6.6)."""
        if self._force:
            return
        attributes = self._attributes
        uid, gid = attributes.owner(member.uid, member.gid, base)
        when = times(member)
        if stat.S_ISLNK(info.st_mode):
            attributes.chown_entry(parent, base, uid, gid)
            os.utime(base, ns=when, dir_fd=parent, follow_symlinks=False)
        elif (
            (info.st_uid, info.st_gid) != (uid, gid)
            or stat.S_IMODE(info.st_mode) != member.mode & 0o7777
            or info.st_mtime_ns != when[1]
            or member.xattrs
        ):
            self._describe_unopened(member, parent, base, stat.S_IFMT(info.st_mode))

    def _special(self, member: Member, parent: int, base: bytes) -> None:
        """Devices and pipes; in a user namespace devices cannot be made and are left out (§6.5)."""
        kind = {tar.CHRTYPE: stat.S_IFCHR, tar.BLKTYPE: stat.S_IFBLK}.get(member.type, stat.S_IFIFO)
        device = 0
        if kind != stat.S_IFIFO:
            if member.devmajor >= _MAJOR_END or member.devminor >= _MINOR_END:
                raise ArchiveError(
                    f"{shown(member.name)}: device {member.devmajor}:{member.devminor} is beyond "
                    "what the kernel can number"
                )
            device = os.makedev(member.devmajor, member.devminor)
        if self._force:
            self._special_as_file(member, parent, base, kind)
            return
        if device and self._in_userns:
            return
        mode = kind | member.mode & 0o777
        try:
            os.mknod(base, mode, device, dir_fd=parent)
        except FileExistsError:
            self._remove(parent, base)
            os.mknod(base, mode, device, dir_fd=parent)
        self._describe_unopened(member, parent, base, kind)

    def _special_as_file(self, member: Member, parent: int, base: bytes, kind: int) -> None:
        """With ``force_mask`` a device is a plain file that says what it stands for (§3.9)."""
        word = "pipe"
        if kind != stat.S_IFIFO:
            letter = "char" if kind == stat.S_IFCHR else "block"
            word = f"{letter}-{member.devmajor}-{member.devminor}"
        fd = self._create(parent, base, 0o600)
        try:
            self._attributes.override(fd, member, word)
            os.utime(fd, ns=times(member))
        finally:
            os.close(fd)

    def _describe_unopened(self, member: Member, parent: int, base: bytes, kind: int) -> None:
        """Owner, mode, times, xattrs of something that must not be opened, through its inode."""
        fd = os.open(base, _OPEN_ANY, dir_fd=parent)
        try:
            if stat.S_IFMT(os.fstat(fd).st_mode) != kind:
                raise ArchiveBreakout(
                    f"{shown(member.name)}: replaced by another process during the import"
                )
            path = beneath.descriptor_path(fd)
            attributes = self._attributes
            attributes.chown_path(path, *attributes.owner(member.uid, member.gid, base), base)
            os.chmod(path, member.mode & 0o7777)
            os.utime(path, ns=times(member))
            if member.xattrs:
                attributes.set_xattrs(path, member, base, follow=True)
        finally:
            os.close(fd)

    # -- parents -------------------------------------------------------------------------------

    def _parent(self, directory: bytes, name: bytes) -> Parent:
        """A member's parent, made where the archive does not mention it (§6.3)."""
        parents = self._parents
        try:
            found = parents.find(directory)
        except (FileNotFoundError, NotADirectoryError):
            self._have(directory)  # a file may be where a directory should be
            found = self._make_parents(directory, name)
        except OSError as error:
            raise refused(name, error, "its parent directory") from error
        parents.note_use(directory)
        if parents.aliased:
            self._keep_order()  # of two names for one path, the later one counts
        return found

    def _make_parents(self, directory: bytes, name: bytes) -> Parent:
        """Missing parents: 0755, owned by the mapped root; whited out ones: opaque, too."""
        parents = self._parents
        path, missing = self._deepest_parent(directory)
        above = parents.find(path)
        if parents.aliased:
            self._keep_order()
        made = False
        for part in missing:
            path = path + b"/" + part if path else part
            opaque = False
            try:
                if not made:  # else nothing is there yet
                    above = parents.find(path)
                    continue
            except FileNotFoundError:
                pass
            except NotADirectoryError as error:
                info = beneath.stat_in(above.fd, part)
                opaque = self._overlay and info is not None and wh.is_whiteout_device(info)
                if not opaque:
                    raise refused(name, error, f"its parent {shown(path)}") from error
                os.unlink(part, dir_fd=above.fd)
            try:
                os.mkdir(part, 0o755, dir_fd=above.fd)
            except FileExistsError as error:
                raise ArchiveError(
                    f"{shown(name)}: its parent {shown(path)} is a symbolic link to nothing"
                ) from error
            fd = open_child(above.fd, part)
            try:
                if self._force:
                    self._attributes.override(fd, None, "dir")
                else:
                    self._attributes.chown(fd, *self._attributes.owner(0, 0, path), path)
                    os.fchmod(fd, 0o755)
                if opaque:
                    self._make_opaque(fd)
            except BaseException:
                os.close(fd)
                raise
            above = parents.keep(path, fd)
            made = True
        return above

    def _deepest_parent(self, directory: bytes) -> tuple[bytes, list[bytes]]:
        """The longest part of the path that is there, and the components that are not.

        By bisection: each look-up walks the path from the root, so that trying every component
        of a long one costs the square of its length.
        """
        parts = directory.split(b"/")
        low, high = 0, len(parts)  # ``directory`` itself was tried already
        while high - low > 1:
            middle = (low + high) // 2
            try:
                self._parents.find(b"/".join(parts[:middle]))
                low = middle
            except (FileNotFoundError, NotADirectoryError):
                high = middle
        return b"/".join(parts[:low]), parts[low:]

    # -- whiteouts -----------------------------------------------------------------------------

    def _whiteout(
        self, member: Member, name: bytes, directory: bytes, base: bytes
    ) -> tuple[bytes, int]:
        self.settle()
        if self._replaced(directory):
            return name, SKIPPED  # umoci writes these: a file, then what its directory lost
        if base == wh.OPAQUE:
            parent = self._parent(directory, name).fd
            if self._overlay:
                self._make_opaque(parent)
            else:
                self._empty_lower(directory, open_child(parent, b"."))
            return directory, OPAQUE
        if base.startswith(wh.META_PREFIX):
            return name, SKIPPED
        target = base[len(wh.PREFIX) :]
        if target in (b"", b".", b".."):
            raise ArchiveError(f"{shown(name)}: whiteout of {shown(target)} is refused")
        path = directory + b"/" + target if directory else target
        if self._below_whiteout(directory):
            return path, SKIPPED  # all of it is gone already
        parent = self._parent(directory, name).fd
        own = hash(path) in self._seen or path in self._parents.used
        info = beneath.stat_in(parent, target) if own else None
        if own and (info is None or not stat.S_ISDIR(info.st_mode)):
            pass  # this archive's own entry already hides or replaced what was there
        elif own:
            self._hide_lower(parent, target, path)
        elif self._overlay:
            self._whiteout_device(member, parent, target)
        else:
            self._remove(parent, target)
        return path, WHITEOUT

    def _replaced(self, directory: bytes) -> bool:
        """Whether this archive made a file or the like of ``directory`` or of one above it."""
        while directory:
            above, _, base = directory.rpartition(b"/")
            if hash(directory) in self._seen:
                try:
                    info = beneath.stat_in(self._parents.find(above).fd, base)
                except (FileNotFoundError, NotADirectoryError):
                    return False
                kind = stat.S_IFMT(info.st_mode) if info is not None else stat.S_IFDIR
                return kind not in (stat.S_IFDIR, stat.S_IFLNK)
            directory = above
        return False

    def _below_whiteout(self, directory: bytes) -> bool:
        """Whether a whiteout of this archive already covers ``directory``."""
        while directory and self._parents.get(directory) is None:
            above, slash, base = directory.rpartition(b"/")
            if hash(above + slash + wh.PREFIX + base) in self._seen:
                try:
                    info = beneath.stat_in(self._parents.find(above).fd, base)
                except (FileNotFoundError, NotADirectoryError):
                    return True
                return info is None or wh.is_whiteout_device(info)
            directory = above
        return False

    def _hide_lower(self, parent: int, target: bytes, path: bytes) -> None:
        """Keep this archive's directory, hide or remove what lower layers have in it."""
        fd = open_child(parent, target)
        if not self._overlay:
            self._empty_lower(path, fd)
            return
        try:
            self._make_opaque(fd)
        finally:
            os.close(fd)

    def _whiteout_device(self, member: Member, parent: int, target: bytes) -> None:
        try:
            os.mknod(target, stat.S_IFCHR, 0, dir_fd=parent)
        except FileExistsError:
            self._remove(parent, target)
            os.mknod(target, stat.S_IFCHR, 0, dir_fd=parent)
        if not self._force:
            uid, gid = self._attributes.owner(member.uid, member.gid, target)
            self._attributes.chown_entry(parent, target, uid, gid)

    def _make_opaque(self, fd: int) -> None:
        os.setxattr(beneath.descriptor_path(fd), self._opaque_xattr, b"y")

    def _empty_lower(self, directory: bytes, fd: int) -> None:
        """Remove what this archive did not make below the directory ``fd``, which is closed."""
        stack = [(directory, fd)]
        try:
            while stack:
                path, fd = stack.pop()
                try:
                    for name in beneath.list_names(fd):
                        child = path + b"/" + name if path else name
                        if hash(child) not in self._seen and child not in self._parents.used:
                            self._remove(fd, name)
                            continue
                        info = beneath.stat_in(fd, name)
                        if info is not None and stat.S_ISDIR(info.st_mode):
                            stack.append((child, open_child(fd, name)))
                finally:
                    os.close(fd)
        finally:
            for _, fd in stack:
                os.close(fd)

    def _remove(self, parent: int, base: bytes) -> None:
        self._keep_order()
        self._exact = False
        beneath.remove_in(parent, base)
        self._parents.forget()

    # -- the end -------------------------------------------------------------------------------

    def finish(self) -> int:
        """Set what waited for the end; returns the content size (§5.6)."""
        self.settle()
        for path, value in self._attributes.default_acls:
            fd = beneath.open_in_root(self._parents.root, path, beneath.DIRECTORY)
            try:
                self._attributes.set_default_acl(beneath.descriptor_path(fd), value, path)
            finally:
                os.close(fd)
        for path, atime, mtime, mode in reversed(self._directories):
            directory, _, base = path.rpartition(b"/")
            try:
                if self._late_modes and not self._force:
                    self._set_late_mode(path, mode)
                fd = self._parents.find(directory).fd
                info = beneath.stat_in(fd, base or b".")
                if info is not None and stat.S_ISDIR(info.st_mode):
                    self.disk_size += info.st_blocks * 512
                    os.utime(base or b".", ns=(atime, mtime), dir_fd=fd, follow_symlinks=False)
            except (FileNotFoundError, NotADirectoryError):
                continue  # removed again by a later entry
            except OSError as error:
                raise refused(path, error) from error
            finally:
                self._parents.tidy()
        if self._exact:
            return self._content_size
        from cstorage.archive.changes import tree_size
        from cstorage.archive.occupied import occupied

        self.disk_size = occupied(self._parents.root)
        return tree_size(self._parents.root)

    def _set_late_mode(self, path: bytes, mode: int) -> None:
        fd = beneath.open_in_root(self._parents.root, path, beneath.DIRECTORY | os.O_NOFOLLOW)
        try:
            os.chmod(beneath.descriptor_path(fd), mode)
        finally:
            os.close(fd)


def write_all(fd: int, view: memoryview) -> None:
    """Write all of ``view``."""
    written = os.write(fd, view)
    while written < len(view):
        view = view[written:]
        written = os.write(fd, view)


def refused(name: bytes, error: OSError, what: str = "") -> Exception:
    """What a failed call means: the archive's fault, or the machine's."""
    if isinstance(error, Explained):
        return error
    if error.errno in _ARCHIVE_ERRNOS:
        about = f"{what}: " if what else ""
        return ArchiveError(f"{shown(name)}: {about}{error.strerror}")
    return Explained(error.errno, f"cannot extract {shown(name)}: {error.strerror}")
