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
    sentinel = "container not known"


class ImageUnknown(UnknownItemError):
    sentinel = "image not known"


class LayerUnknown(UnknownItemError):
    sentinel = "layer not known"


class ParentUnknown(UnknownItemError):
    sentinel = "parent of layer not known"


class DigestUnknown(UnknownItemError):
    sentinel = "could not compute digest of item"


class SizeUnknown(UnknownItemError):
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
    sentinel = "identifier is not a container"


class NotALayer(WrongKindError):
    sentinel = "identifier is not a layer"


class NotAnImage(WrongKindError):
    sentinel = "identifier is not an image"


class NotAnID(WrongKindError):
    sentinel = "identifier is not a layer, image, or container"


# -- duplicates ----------------------------------------------------------------------------------


class DuplicateID(DuplicateError):
    sentinel = "that ID is already in use"


class DuplicateName(DuplicateError):
    sentinel = "that name is already in use"


class DuplicateImageNames(DuplicateError):
    sentinel = "read-only image store assigns the same name to multiple images"


class DuplicateLayerNames(DuplicateError):
    sentinel = "read-only layer store assigns the same name to multiple layers"


# -- in use --------------------------------------------------------------------------------------


class ImageUsedByContainer(InUseError):
    sentinel = "image is in use by a container"


class LayerHasChildren(InUseError):
    sentinel = "layer has children"


class LayerUsedByContainer(InUseError):
    sentinel = "layer is in use by a container"


class LayerUsedByImage(InUseError):
    sentinel = "layer is in use by an image"


class ItemPinned(InUseError):
    """Somebody asked that the item not be deleted; the text says who, since when and why."""


class ParentIsContainer(InUseError):
    sentinel = "would-be parent layer is a container"


# -- refusals of other reasons -------------------------------------------------------------------


class IncompleteOptions(StorageError):
    sentinel = "missing necessary StoreOptions"


class InvalidBigDataName(StorageError):
    sentinel = "not a valid name for a big data item"


class InvalidID(StorageError):
    """An ID that could leave the store when used as a path, or that no record can hold."""


class InvalidDigest(StorageError):
    """A digest string that is malformed; the text says how."""


class InvalidMappings(StorageError):
    sentinel = "invalid mappings specified"


class LayerNotMounted(StorageError):
    sentinel = "layer is not mounted"


class LoadError(StorageError):
    sentinel = "error loading storage metadata"


class NoAvailableIDs(StorageError):
    sentinel = "not enough unused IDs in user namespace"


class NotSupported(StorageError):
    sentinel = "not supported"


class StoreIsReadOnly(ReadOnlyError):
    sentinel = "called a write method on a read-only store"


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
    sentinel = "driver not supported"


class ArchiveError(StorageError):
    """A layer archive that is malformed, truncated, hostile or beyond its limits.

    The only error that malformed archives may raise (with its subclasses).
    """


class ArchiveTruncated(ArchiveError):
    sentinel = "unexpected EOF"


class ArchiveBreakout(ArchiveError):
    """An entry that would read or change something outside the layer."""


class ArchiveLimitExceeded(ArchiveError):
    """More bytes, entries or expansion than the caller allowed."""


class UnsupportedCompression(ArchiveError):
    """A compression that is recognised but not offered in that direction."""


class ContentChanged(ArchiveError):
    """A layer's file no longer has the content that was recorded when it was imported."""


class NamesChanged(StorageError):
    """A name, or an item's names, are not what the caller expected; nothing was changed."""


# -- findings of check ---------------------------------------------------------------------------


class CheckError(StorageError):
    """Base of the findings of ``check``; never raised by ordinary operations."""


class LayerUnaccounted(CheckError):
    sentinel = "layer in lower level storage driver not accounted for"


class LayerUnreferenced(CheckError):
    sentinel = "layer not referenced by any images or containers"


class LayerIncorrectContentDigest(CheckError):
    sentinel = "layer content incorrect digest"


class LayerIncorrectContentSize(CheckError):
    sentinel = "layer content incorrect size"


class LayerContentModified(CheckError):
    sentinel = "layer content modified"


class LayerFileListDamaged(CheckError):
    sentinel = "layer file list is damaged"


class LayerDirectoryDamaged(CheckError):
    sentinel = "layer directory is damaged"


class LayerDataMissing(CheckError):
    sentinel = "layer data item is missing"


class LayerMissing(CheckError):
    sentinel = "layer is missing"


class ImageLayerMissing(CheckError):
    sentinel = "image layer is missing"


class ImageDataMissing(CheckError):
    sentinel = "image data item is missing"


class ImageDataIncorrectSize(CheckError):
    sentinel = "image data item has incorrect size"


class ContainerImageMissing(CheckError):
    sentinel = "image missing"


class ContainerDataMissing(CheckError):
    sentinel = "container data item is missing"


class ContainerDataIncorrectSize(CheckError):
    sentinel = "container data item has incorrect size"
