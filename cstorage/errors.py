"""One class per refusal, named after the sentinels of containers/storage (``Err*``).

Rules of this module:

* Every refusal that a caller may want to tell apart has its own class; its default text is the
  sentinel's text, because scripts match on it.
* ``str(error)`` is what a person reads: context first, the sentinel's text last, as the original
  composes it (``locating image with ID "x": image not known``).
* Families (``UnknownItemError``, ``DuplicateError``, ``InUseError``, ``ReadOnlyError``,
  ``WrongKindError``) let callers catch by reason.
"""

from __future__ import annotations


class StorageError(Exception):
    """Base of every error that the store raises on purpose.

    ``StorageError("reading x")`` renders as ``reading x: <sentinel text>`` in classes that have a
    sentinel text, and as the given text in those that have none. ``hint`` says how to fix it.
    """

    sentinel: str = ""

    def __init__(self, context: str = "", *, hint: str = "") -> None:
        self.context = context
        self.hint = hint
        super().__init__(context)

    def __str__(self) -> str:
        if self.sentinel and self.context:
            return f"{self.context}: {self.sentinel}"
        return self.context or self.sentinel or type(self).__name__


# -- families ------------------------------------------------------------------------------------


class UnknownItemError(StorageError):
    """Something was named that the store does not have."""


class DuplicateError(StorageError):
    """Something was to be created whose ID or name is taken."""


class InUseError(StorageError):
    """Something was to be removed that something else rests on."""


class ReadOnlyError(StorageError):
    """A change was asked of something that can only be read."""


class WrongKindError(UnknownItemError):
    """An identifier was given that is not of the kind the operation works on."""


# -- unknown -------------------------------------------------------------------------------------


class ContainerUnknown(UnknownItemError):
    """No container has this ID, name, ID prefix or layer."""

    sentinel = "container not known"


class ImageUnknown(UnknownItemError):
    """No image has this ID, name or ID prefix."""

    sentinel = "image not known"


class LayerUnknown(UnknownItemError):
    """No layer matches, or no item at all where any kind would do.

    Also: an unknown parent, template or top layer, a search by digest without result, and a layer
    that an image or container needs and the store lacks.
    """

    sentinel = "layer not known"


class ParentUnknown(UnknownItemError):
    """Kept for callers that catch it, as in the original; an unknown parent is ``LayerUnknown``."""

    sentinel = "parent of layer not known"


class DigestUnknown(UnknownItemError):
    """A blob has no digest to give, or a manifest was written without a function that makes one."""

    sentinel = "could not compute digest of item"


class SizeUnknown(UnknownItemError):
    """A blob has no size to give: it, or its item, is not there."""

    sentinel = "size is not known"


class BigDataUnknown(UnknownItemError, FileNotFoundError):
    """A known item has no big data under that name.

    It is a ``FileNotFoundError`` too: the operating system's not-exist condition is part of the
    original's contract for this case (semantics §4.9).
    """

    sentinel = "file does not exist"

    @classmethod
    def at(cls, path: str) -> BigDataUnknown:
        """The form that containers use: the system's words for the file that is not there."""
        error = cls(f"open {path}")
        error.sentinel = "no such file or directory"
        return error


class DirectoryFileUnknown(UnknownItemError, FileNotFoundError):
    """A container's directory has no such file (the system's not-exist condition)."""


# -- wrong kind ----------------------------------------------------------------------------------


class NotAContainer(WrongKindError):
    """A container was to be deleted and none matches."""

    sentinel = "identifier is not a container"


class NotALayer(WrongKindError):
    """A layer was to be deleted and none matches in the writable store."""

    sentinel = "identifier is not a layer"


class NotAnImage(WrongKindError):
    """An image was to be deleted and none matches in the writable store."""

    sentinel = "identifier is not an image"


class NotAnID(WrongKindError):
    """An operation on items of any kind found none."""

    sentinel = "identifier is not a layer, image, or container"


# -- duplicates ----------------------------------------------------------------------------------


class DuplicateID(DuplicateError):
    """A new item was given an ID that its kind has already."""

    sentinel = "that ID is already in use"


class DuplicateName(DuplicateError):
    """A new item was given a name that an item of its kind has already.

    Changing names never raises it: there the name moves.
    """

    sentinel = "that name is already in use"


class DuplicateImageNames(DuplicateError):
    """An additional image store, which we only read, gives one name to several images."""

    sentinel = "read-only image store assigns the same name to multiple images"


class DuplicateLayerNames(DuplicateError):
    """An additional image store, which we only read, gives one name to several layers."""

    sentinel = "read-only layer store assigns the same name to multiple layers"


# -- in use --------------------------------------------------------------------------------------


class ImageUsedByContainer(InUseError):
    """The image cannot go while a container is made from it."""

    sentinel = "image is in use by a container"


class LayerHasChildren(InUseError):
    """The layer cannot go while another layer rests on it."""

    sentinel = "layer has children"


class LayerUsedByContainer(InUseError):
    """The layer belongs to a container, or something is mounted at shutdown."""

    sentinel = "layer is in use by a container"


class LayerUsedByImage(InUseError):
    """The layer cannot go while it is an image's top layer."""

    sentinel = "layer is in use by an image"


class ItemPinned(InUseError):
    """Somebody asked that the item not be deleted; the text says who, since when and why."""


class ParentIsContainer(InUseError):
    """A container's layer cannot be the parent of a new layer."""

    sentinel = "would-be parent layer is a container"


# -- refusals of other reasons -------------------------------------------------------------------


class IncompleteOptions(StorageError):
    """A store was to be opened with options but neither graph root nor run root."""

    sentinel = "missing necessary StoreOptions"


class InvalidBigDataName(StorageError):
    """The empty name was given for a blob."""

    sentinel = "not a valid name for a big data item"


class InvalidID(StorageError):
    """An ID that could leave the store when used as a path, or that no record can hold."""


class InvalidDigest(StorageError):
    """A digest string that is malformed; the text says how."""


class InvalidMappings(StorageError):
    """Ranges of a container's user or group ID map overlap."""

    sentinel = "invalid mappings specified"


class LayerNotMounted(StorageError):
    """The owners of a mapped layer's parents can be told only while it is mounted."""

    sentinel = "layer is not mounted"


class LoadError(StorageError):
    """Kept for callers that catch it, as in the original; nothing raises it."""

    sentinel = "error loading storage metadata"


class NoAvailableIDs(StorageError):
    """An automatic user namespace needs more unused host IDs than there are."""

    sentinel = "not enough unused IDs in user namespace"


class NotSupported(StorageError):
    """The driver, or this system, does not offer the operation."""

    sentinel = "not supported"


class StoreIsReadOnly(ReadOnlyError):
    """A write was asked of a layer or store that is open for reading only."""

    sentinel = "called a write method on a read-only store"


class StoreNotFound(UnknownItemError):
    """There is no store at the graph root, and none was to be made."""


class ViewChanged(StorageError):
    """Another program wrote to the view that it reads; it is left as it is."""


class StoreDamaged(StorageError):
    """The journal does not verify; the store refuses writes and says what to run."""


class StoreBusy(StorageError):
    """The writer lock was not to be had in time; the text names the holder."""


class OutcomeUnknown(StorageError):
    """A sync failed: whether the change is durable is not known; reopening the store tells."""


class ConfigError(StorageError):
    """A configuration file or a store option that cannot be understood."""


class DriverError(StorageError):
    """The graph driver could not do its part (mount, copy, apply)."""


class DriverNotSupported(DriverError):
    """The graph driver is unknown, or this system cannot run it."""

    sentinel = "driver not supported"


class ArchiveError(StorageError):
    """A layer archive that is malformed, truncated, hostile or beyond its limits.

    The only error that malformed archives may raise (with its subclasses).
    """


class ArchiveTruncated(ArchiveError):
    """The archive ends before its last member does."""

    sentinel = "unexpected EOF"


class ArchiveBreakout(ArchiveError):
    """An entry that would read or change something outside the layer."""


class ArchiveLimitExceeded(ArchiveError):
    """More bytes, entries or expansion than the caller allowed."""


class UnsupportedCompression(ArchiveError):
    """A compression that is recognised but not offered in that direction."""


class ContentChanged(ArchiveError):
    """A layer's file no longer has the content that was recorded when it was imported."""


class ArchiveChanged(ContentChanged):
    """A layer's archive as a whole is not what was recorded; no file is known to be the reason."""


class NotInHistory(StorageError):
    """A moment that the journal does not tell of: before its first frame, or yet to come."""


class NotKept(UnknownItemError):
    """Nothing of that ID or name was deleted that is still kept; or what it rested on is not."""


class ChangedSince(InUseError):
    """What is to be undone was changed again by a later transaction."""


class NamesChanged(StorageError):
    """A name, or an item's names, are not what the caller expected; nothing was changed."""


# -- findings of check ---------------------------------------------------------------------------


class CheckError(StorageError):
    """Base of the findings of ``check``; never raised by ordinary operations."""


class LayerUnaccounted(CheckError):
    """The driver has a tree that no record owns."""

    sentinel = "layer in lower level storage driver not accounted for"


class LayerUnreferenced(CheckError):
    """No image or container needs the layer."""

    sentinel = "layer not referenced by any images or containers"


class LayerIncorrectContentDigest(CheckError):
    """What the layer would be exported as has another digest than was recorded."""

    sentinel = "layer content incorrect digest"


class LayerFileChanged(LayerIncorrectContentDigest):
    """A file that the layer's recipe needs is not what was imported, or gone; the text names it."""

    sentinel = ""


class LayerIncorrectContentSize(CheckError):
    """What the layer would be exported as has another size than was recorded."""

    sentinel = "layer content incorrect size"


class LayerContentModified(CheckError):
    """A file of the layer is not what was imported; the text names it."""

    sentinel = "layer content modified"

    def __str__(self) -> str:
        return f"{self.context}, {self.sentinel}" if self.context else self.sentinel


class LayerFileListDamaged(CheckError):
    """The recorded list of the layer's files cannot be read."""

    sentinel = "layer file list is damaged"


class LayerDirectoryDamaged(CheckError):
    """What the driver keeps beside the layer's tree (``link``, ``lower``) is lost or wrong."""

    sentinel = "layer directory is damaged"


class LayerDataMissing(CheckError):
    """The layer's tree or one of its blobs is gone."""

    sentinel = "layer data item is missing"


class LayerMissing(CheckError):
    """A layer that another one rests on is not recorded."""

    sentinel = "layer is missing"


class ImageLayerMissing(CheckError):
    """The image's top layer is not recorded."""

    sentinel = "image layer is missing"


class ImageDataMissing(CheckError):
    """A blob of the image is gone."""

    sentinel = "image data item is missing"


class ImageDataIncorrectSize(CheckError):
    """A blob of the image has another size than was recorded."""

    sentinel = "image data item has incorrect size"


class ContainerImageMissing(CheckError):
    """The image that the container was made from is not recorded."""

    sentinel = "image missing"


class ContainerDataMissing(CheckError):
    """A blob of the container is gone."""

    sentinel = "container data item is missing"


class ContainerDataIncorrectSize(CheckError):
    """A blob of the container has another size than was recorded."""

    sentinel = "container data item has incorrect size"
