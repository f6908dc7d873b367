"""Assembling, attaching and releasing the overlay of one layer.

Rules (drivers-and-formats §3.4): a layer's own rotated contents come before its parents' contents;
a read-only mount has the layer's ``diff`` as first lower directory and no upper one; per-mount
options replace the configured ``mountopt``, except that a ``metacopy=on`` which is configured and
works stays; options that are mount flags are passed as flags; layers of read-only stores are
mounted read-only below RUNROOT.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from cstorage.drivers import layout
from cstorage.drivers.mountapi import (
    NO_FLAGS,
    RESERVED_DATA,
    Flags,
    OverlayMount,
    detach,
    is_mount_point,
    mount_overlay,
    split_options,
)
from cstorage.errors import DriverError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cstorage.drivers.contract import MountOptions
    from cstorage.drivers.overlay import OverlayDriver

_METACOPY = "metacopy=on"


def lower_directories(driver: OverlayDriver, layer: layout.LayerDir) -> list[str]:
    """Everything below the layer's ``diff``; at least one directory."""
    lowers = driver.homes.chain(layer.path)
    if len(lowers) > layout.DEPTH_MAX:
        raise DriverError(
            f"max depth exceeded: {len(lowers)} lower directories, the kernel stacks at most"
            f" {layout.DEPTH_MAX}"
        )
    if not lowers:
        empty = f"{layer.path}/empty" if layer.own else f"{driver.run_home}/{layer.id}/empty"
        os.makedirs(empty, mode=0o700, exist_ok=True)
        lowers.append(empty)
    return lowers


def assemble(
    driver: OverlayDriver,
    layer: layout.LayerDir,
    *,
    read_only: bool,
    lowers: Sequence[str] = (),
    data: Sequence[str] = (),
    flags: Flags = NO_FLAGS,
    label: str = "",
) -> OverlayMount:
    """The overlay of a layer. ``lowers`` replace those of its chain (ID-mapped copies)."""
    if not os.path.isdir(layer.diff):
        raise DriverError(f"Stat {layer.diff}: no such file or directory")
    below = tuple(lowers) or tuple(lower_directories(driver, layer))
    options = (*data, *(("userxattr",) if driver.probe.user_xattr else ()))
    if read_only:
        flags = Flags(flags.legacy | 1, flags.attributes | 1)
        return OverlayMount((layer.diff, *below), data=options, flags=flags, label=label)
    return OverlayMount(below, layer.diff, f"{layer.path}/work", options, flags, label)


def mount_options(driver: OverlayDriver, options: MountOptions) -> tuple[Flags, list[str]]:
    """Flags and data of a mount from its own and the configured options."""
    configured = driver.settings.mountopt
    chosen = list(options.options or configured)
    if _METACOPY in configured and _METACOPY not in chosen:
        chosen.append(_METACOPY)
    if _METACOPY in chosen and not driver.probe.metacopy:
        chosen = [option for option in chosen if option != _METACOPY]
    flags, data = split_options(chosen)
    for option in data:
        if option.partition("=")[0] in RESERVED_DATA:
            raise DriverError(
                f"mount option {option!r} is the driver's own", hint="remove it from the options"
            )
    return flags, list(data)


def mount_layer(driver: OverlayDriver, layer: layout.LayerDir, options: MountOptions) -> str:
    """Mount a layer at its mount point, which is returned. Already mounted is success."""
    point = driver.mount_point(layer)
    if is_mount_point(point):
        return point
    flags, data = mount_options(driver, options)
    read_only = options.read_only or flags.read_only or not layer.own
    os.makedirs(point, mode=0o700, exist_ok=True)
    if options.volatile and not read_only and driver.probe.volatile:
        _forget_volatile(layer.path)
        data.append("volatile")
    if not read_only:
        os.makedirs(f"{layer.path}/work", mode=0o700, exist_ok=True)
    mount = assemble(
        driver, layer, read_only=read_only, data=data, flags=flags, label=options.label
    )
    try:
        mount_overlay(mount, os.path.abspath(point))
    except OSError as error:
        raise DriverError(
            f"creating overlay mount to {point}: {error.strerror or error}",
            hint="the kernel log (dmesg) has the details",
        ) from error
    return point


def _forget_volatile(path: str) -> None:
    """Remove the mark that an earlier volatile mount may have left after a crash.

    The kernel refuses to mount over it, because content may be missing; whoever asks for a volatile
    mount has accepted that.
    """
    mark = f"{path}/work/work/incompat/volatile"
    for remove, name in ((os.rmdir, mark), (os.rmdir, os.path.dirname(mark))):
        try:
            remove(name)
        except FileNotFoundError:
            continue
        except OSError:
            break


def release(path: str, mount_program: str = "") -> None:
    """Detach everything mounted inside a layer directory; renew the mount point.

    The fresh directory renamed over ``merged`` also drops copies of the mount that other mount
    namespaces still hold.
    """
    merged = f"{path}/merged"
    while is_mount_point(merged):
        if mount_program and _fuse_unmount(merged):
            continue
        if not detach(merged):
            break
        fresh = f"{path}/merged.1"
        try:
            os.mkdir(fresh, 0o700)
            os.rename(fresh, merged)
        except OSError:
            # The old directory serves as well.
            try:
                os.rmdir(fresh)
            except OSError:
                pass
    mapped = f"{path}/mapped"
    try:
        leaked = os.listdir(mapped)
    except FileNotFoundError:
        return
    for name in leaked:
        detach(f"{mapped}/{name}")


def _fuse_unmount(point: str) -> bool:
    import subprocess

    for program in ("fusermount3", "fusermount"):
        try:
            done = subprocess.run(
                [program, "-u", point], check=False, capture_output=True, timeout=30
            )
        except (FileNotFoundError, subprocess.TimeoutExpired):
            continue
        if done.returncode == 0:
            return True
    return False
