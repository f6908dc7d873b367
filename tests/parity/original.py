"""What containers/storage of April 2026 offers, as lists: the left column of docs/parity.md.

Rules of this module: facts only, in the order of the original; ours is named where the name does
not follow from the original's. ``GAPS`` is the whole list of what has no counterpart or no test
here; the tests hold it equal to what is found, so it can only shrink knowingly.
"""

from __future__ import annotations

MAPS = "--uidmap --gidmap --subuidmap --subgidmap --hostuidmap --hostgidmap"

#: Flags of every command; the spellings of one flag are joined by commas.
GLOBAL_FLAGS = (
    "--debug,-D --graph,-g --run,-R --image-store --transient-store --storage-driver,-s "
    "--storage-opt --unshare,-U --help"
)

#: Command with its aliases -> its own flags.
COMMANDS: dict[str, str] = {
    "check": "--quick,-q --repair,-r --force,-f --max,-m --json,-j",
    "config": "",
    "container": "--json,-j",
    "list-container-data listcontainerdata": "--json,-j",
    "get-container-data getcontainerdata": "--file,-f",
    "get-container-data-size getcontainerdatasize": "",
    "get-container-data-digest getcontainerdatadigest": "",
    "set-container-data setcontainerdata": "--file,-f",
    "get-container-dir getcontainerdir": "",
    "get-container-run-dir getcontainerrundir": "",
    "container-parent-owners": "--json,-j",
    "containers": "--json,-j",
    "copy": "--chown,-o --json,-j",
    "create-storage-layer": f"--label,-l --id,-i --readonly,-r --json,-j {MAPS}",
    "create-layer createlayer": f"--label,-l --name,-n --id,-i --readonly,-r --json,-j {MAPS}",
    "import-layer importlayer": (
        f"--label,-l --name,-n --id,-i --readonly,-r --file,-f --json,-j {MAPS}"
    ),
    "create-image createimage": (
        "--name,-n --id,-i --digest,-d --metadata,-m --metadata-file,-f --json,-j"
    ),
    "create-container createcontainer": (
        f"--name,-n --id,-i --metadata,-m --metadata-file,-f --json,-j --volatile {MAPS}"
    ),
    "dedup": "--hash-method --json,-j",
    "delete": "--json,-j",
    "delete-layer deletelayer": "--json,-j",
    "delete-image deleteimage": "--test,-t --json,-j",
    "delete-container deletecontainer": "--json,-j",
    "changes": "--json,-j",
    "diffsize diff-size": "",
    "diff": "--file,-f --uncompressed,-u --gzip,-c --bzip2,--bz2,-b --xz,-x",
    "applydiff apply-diff": "--file,-f",
    "applydiff-using-staging-dir": "",
    "exists": "--quiet,-q --layer,-l --image,-i --container,-c --json,-j",
    "gc": "--json,-j",
    "image": "--json,-j",
    "list-image-data listimagedata": "--json,-j",
    "get-image-data getimagedata": "--file,-f",
    "get-image-data-size getimagedatasize": "",
    "get-image-data-digest getimagedatadigest": "",
    "set-image-data setimagedata": "--file,-f",
    "get-image-dir getimagedir": "",
    "get-image-run-dir getimagerundir": "",
    "images": "--quiet,-q --json,-j",
    "images-by-digest": "--quiet,-q --json,-j",
    "layer": "--json,-j",
    "layer-parent-owners": "--json,-j",
    "list-layer-data listlayerdata": "--json,-j",
    "get-layer-data getlayerdata": "--file,-f",
    "set-layer-data setlayerdata": "--file,-f",
    "layers": "--tree,-t --quick,-q --json,-j",
    "storage-layers": "--json,-j",
    "metadata": "--quiet,-q --json,-j",
    "set-metadata setmetadata": "--metadata,-m --metadata-file,-f",
    "mount": "--opt,-o --label,-l --read-only,--ro,-r --json,-j",
    "unmount umount": "--force,-f --json,-j",
    "mounted": "--json,-j",
    "get-names getnames": "--json,-j",
    "add-names addnames": "--name,-n --json,-j",
    "remove-names removenames": "--name,-n --json,-j",
    "set-names setnames": "--name,-n --json,-j",
    "shutdown": "--force,-f --json,-j",
    "status": "--json,-j",
    "unshare": "",
    "version": "--json,-j",
    "wipe": "--json,-j",
}

#: Methods of the original's Store. Ours is the same in snake_case, except in ``OUR_METHODS``.
METHODS = """
RunRoot GraphRoot ImageStore TransientStore GraphDriverName GraphOptions PullOptions UIDMap GIDMap
GraphDriver Status Version GetDigestLock Free MultiList Layers Images Containers Exists Lookup Names
Metadata SetMetadata SetNames AddNames RemoveNames Layer Image Container ContainerByLayer
ImagesByTopLayer ImagesByDigest LayersByCompressedDigest LayersByUncompressedDigest
LayersByTOCDigest CreateLayer PutLayer LayerSize LayerParentOwners ContainerParentOwners
DifferTarget Changes DiffSize Diff ApplyDiff PrepareStagedLayer ApplyStagedLayer CleanupStagedLayer
DeleteLayer DeleteImage DeleteContainer Delete Wipe Mount Unmount Mounted MountImage UnmountImage
Shutdown CreateImage ImageSize ImageDirectory ImageRunDirectory ListImageBigData ImageBigData
ImageBigDataSize ImageBigDataDigest SetImageBigData ListLayerBigData LayerBigData SetLayerBigData
ListContainerBigData ContainerBigData ContainerBigDataSize ContainerBigDataDigest
SetContainerBigData CreateContainer ContainerSize ContainerDirectory ContainerRunDirectory
SetContainerDirectoryFile SetContainerRunDirectoryFile FromContainerDirectory
FromContainerRunDirectory GarbageCollect Dedup Check Repair LookupAdditionalLayer
"""
OUR_METHODS = {
    "TransientStore": "transient",
    "GraphDriverName": "driver_name",
    "GraphOptions": "driver_options",
    "GetDigestLock": "digest_lock",
    "PutLayer": "import_layer",
}

#: Sentinel -> text. Ours is the class without ``Err``.
ERRORS = {
    "ErrContainerUnknown": "container not known",
    "ErrDigestUnknown": "could not compute digest of item",
    "ErrDuplicateID": "that ID is already in use",
    "ErrDuplicateImageNames": "read-only image store assigns the same name to multiple images",
    "ErrDuplicateLayerNames": "read-only layer store assigns the same name to multiple layers",
    "ErrDuplicateName": "that name is already in use",
    "ErrImageUnknown": "image not known",
    "ErrImageUsedByContainer": "image is in use by a container",
    "ErrIncompleteOptions": "missing necessary StoreOptions",
    "ErrInvalidBigDataName": "not a valid name for a big data item",
    "ErrLayerHasChildren": "layer has children",
    "ErrLayerNotMounted": "layer is not mounted",
    "ErrLayerUnknown": "layer not known",
    "ErrLayerUsedByContainer": "layer is in use by a container",
    "ErrLayerUsedByImage": "layer is in use by an image",
    "ErrLoadError": "error loading storage metadata",
    "ErrNotAContainer": "identifier is not a container",
    "ErrNotALayer": "identifier is not a layer",
    "ErrNotAnID": "identifier is not a layer, image, or container",
    "ErrNotAnImage": "identifier is not an image",
    "ErrParentIsContainer": "would-be parent layer is a container",
    "ErrParentUnknown": "parent of layer not known",
    "ErrSizeUnknown": "size is not known",
    "ErrStoreIsReadOnly": "called a write method on a read-only store",
    "ErrNotSupported": "not supported",
    "ErrInvalidMappings": "invalid mappings specified",
    "ErrNoAvailableIDs": "not enough unused IDs in user namespace",
    "ErrLayerUnaccounted": "layer in lower level storage driver not accounted for",
    "ErrLayerUnreferenced": "layer not referenced by any images or containers",
    "ErrLayerIncorrectContentDigest": "layer content incorrect digest",
    "ErrLayerIncorrectContentSize": "layer content incorrect size",
    "ErrLayerContentModified": "layer content modified",
    "ErrLayerDataMissing": "layer data item is missing",
    "ErrLayerMissing": "layer is missing",
    "ErrImageLayerMissing": "image layer is missing",
    "ErrImageDataMissing": "image data item is missing",
    "ErrImageDataIncorrectSize": "image data item has incorrect size",
    "ErrContainerImageMissing": "image missing",
    "ErrContainerDataMissing": "container data item is missing",
    "ErrContainerDataIncorrectSize": "container data item has incorrect size",
}

#: Table of storage.conf -> its keys.
KEYS = {
    "storage": (
        "driver driver_priority graphroot runroot imagestore rootless_storage_path transient_store"
    ),
    "storage.options": (
        "additionalimagestores additionallayerstores imagestore size mount_program "
        "skip_mount_home ignore_chown_errors force_mask mountopt use_composefs "
        "root-auto-userns-user auto-userns-min-size auto-userns-max-size disable-volatile"
    ),
    "storage.options.pull_options": (
        "enable_partial_images use_hard_links ostree_repos convert_images "
        "insecure_allow_unpredictable_image_contents"
    ),
    "storage.options.overlay": (
        "mountopt mount_program size inodes skip_mount_home force_mask ignore_chown_errors "
        "use_composefs sync"
    ),
    "storage.options.vfs": "ignore_chown_errors sync",
    "storage.options.btrfs": "min_space size",
    "storage.options.zfs": "fsname mountopt size",
}

VARIABLES = """
CONTAINERS_STORAGE_CONF CONTAINERS_STORAGE_CONF_OVERRIDE STORAGE_DRIVER STORAGE_OPTS
XDG_CONFIG_HOME XDG_DATA_HOME XDG_RUNTIME_DIR HOME TMPDIR USER SHELL
_CONTAINERS_USERNS_CONFIGURED _CONTAINERS_ROOTLESS_UID _CONTAINERS_ROOTLESS_GID
_CONTAINERS_OVERLAY_DISABLE_IDMAP
"""

#: Item of the page -> why it has no counterpart or no test.
GAPS: dict[str, str] = {}
