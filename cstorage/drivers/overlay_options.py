"""Options of the overlay driver, parsed (drivers-and-formats §3.1). Pure but for path checks."""

from __future__ import annotations

import os

from cstorage.drivers import options as syntax
from cstorage.errors import DriverError
from journal.plain import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

_NAMED_MASKS = {"shared": 0o755, "private": 0o700}


class Quota(NamedTuple):
    """Limits of a layer: bytes and inodes, 0 = none."""

    size: int = 0
    inodes: int = 0

    def __bool__(self) -> bool:
        return bool(self.size or self.inodes)


class OverlaySettings(NamedTuple):
    """What the overlay driver was told."""

    mountopt: tuple[str, ...] = ()
    quota: Quota = Quota()
    mount_program: str = ""
    skip_mount_home: bool = False
    ignore_chown_errors: bool = False
    force_mask: int | None = None
    sync: str = "none"
    additional_layer_stores: tuple[str, ...] = ()

    @property
    def mountopt_text(self) -> str:
        return ",".join(self.mountopt)


def force_mask(value: str) -> int:
    """The mask of ``shared``, ``private`` or an octal number."""
    if value in _NAMED_MASKS:
        return _NAMED_MASKS[value]
    try:
        mask = int(value, 8)
    except ValueError:
        mask = -1
    if not 0 <= mask <= 0o7777:
        raise DriverError(
            f'force_mask "{value}" is not valid',
            hint="write shared, private or an octal mode such as 0700",
        )
    return mask


def parse(given: Iterable[str]) -> OverlaySettings:
    """Settings from option strings; later options win. Raises ``DriverError``."""
    settings = OverlaySettings()
    for key, value, text in syntax.addressed_to("overlay", given):
        match key:
            case "mountopt":
                parts = tuple(part for part in value.split(",") if part)
                settings = settings._replace(mountopt=parts)
            case "size":
                quota = settings.quota._replace(size=syntax.byte_size(value))
                settings = settings._replace(quota=quota)
            case "inodes":
                quota = settings.quota._replace(inodes=_count(value))
                settings = settings._replace(quota=quota)
            case "imagestore" | "additionalimagestore":
                for path in value.split(","):
                    if path:
                        _check_image_store(path)
            case "additionallayerstore":
                stores = tuple(part for part in value.split(",") if part)
                settings = settings._replace(additional_layer_stores=stores)
            case "use_composefs":
                if syntax.boolean(value):
                    raise DriverError(
                        "overlay: composefs is not supported",
                        hint="remove use_composefs; layers are kept as plain directories",
                    )
            case "mount_program":
                if value and not os.path.exists(value):
                    raise DriverError(
                        f"overlay: can't stat program {value}: no such file or directory",
                        hint="install it or remove the option mount_program",
                    )
                settings = settings._replace(mount_program=value)
            case "skip_mount_home":
                settings = settings._replace(skip_mount_home=syntax.boolean(value))
            case "ignore_chown_errors":
                settings = settings._replace(ignore_chown_errors=syntax.boolean(value))
            case "force_mask":
                settings = settings._replace(force_mask=force_mask(value))
            case "sync":
                if value not in {"none", "filesystem"}:
                    raise DriverError(
                        f'invalid value for sync: "{value}"', hint="write none or filesystem"
                    )
                settings = settings._replace(sync=value)
            case "override_kernel_check":
                continue
            case _:
                raise syntax.unknown(key, text)
    return settings


def layer_quota(storage_options: Mapping[str, str], default: Quota) -> Quota:
    """Limits of one layer from its storage options, else the configured ones."""
    quota = default
    for option, value in storage_options.items():
        match option.lower().removeprefix("overlay."):
            case "size":
                quota = quota._replace(size=syntax.byte_size(value))
            case "inodes":
                quota = quota._replace(inodes=_count(value))
            case _:
                raise DriverError(f"unknown option {option}")
    return quota


def _count(value: str) -> int:
    try:
        count = int(value)
    except ValueError:
        count = -1
    if not 0 <= count < 1 << 63:
        raise DriverError(f"invalid number of inodes: '{value}'")
    return count


def _check_image_store(path: str) -> None:
    if not os.path.isabs(path):
        raise DriverError(f'overlay: image path "{path}" is not absolute')
    if not os.path.isdir(path):
        raise DriverError(
            f"overlay: can't stat imageStore dir {path}: no such file or directory",
            hint="create the directory or remove it from additionalimagestores",
        )
