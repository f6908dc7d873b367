"""Assembling, attaching and releasing the overlay of one layer.

Rules (drivers-and-formats §3.4): a layer's own rotated contents come before its parents' contents;
a read-only mount has the layer's ``diff`` as first lower directory and no upper one; per-mount
options replace the configured ``mountopt``, except that a ``metacopy=on`` which is configured and
works stays; options that are mount flags are passed as flags; layers of read-only stores are
mounted read-only below RUNROOT.
"""

from __future__ import annotations

import os
from contextlib import contextmanager

from cstorage.drivers import layout
from cstorage.drivers.mountapi import (
    NO_FLAGS,
    RESERVED_DATA,
    Flags,
    OverlayMount,
    detach,
    is_mount_point,
    mount_overlay,
    overlay_data,
    split_options,
)
from cstorage.errors import DriverError
from cstorage.idmap import root_pair
from journal.plain import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from cstorage.drivers.contract import MountOptions
    from cstorage.drivers.overlay import OverlayDriver
    from cstorage.model import IDMaps

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
    fixed = not layer.own or bool(layout.linked_entry(layer.path))
    read_only = options.read_only or flags.read_only or fixed
    os.makedirs(point, mode=0o700, exist_ok=True)
    if options.volatile and not read_only and driver.probe.volatile:
        _forget_volatile(layer.path)
        data.append("volatile")
    if not read_only:
        os.makedirs(f"{layer.path}/work", mode=0o700, exist_ok=True)
    shifted = bool(options.maps) and options.maps != options.layer_maps
    if shifted:
        _check_shift(driver, layer, options)
        if not read_only and not driver.mount_program:
            os.chown(layer.diff, *root_pair(options.maps))
    program = driver.mount_program
    if program:
        from cstorage.drivers import fuse

        mount = assemble(driver, layer, read_only=read_only, data=data, label=options.label)
        words = [*flag_words(flags), *(fuse.map_options(options.maps) if shifted else ())]
        if driver.settings.force_mask is not None:
            words.append("xattr_permissions=2")
        text = overlay_data(mount._replace(data=(*mount.data, *words)))
        remember_mount_program(driver.home)
        fuse.mount(program, driver.home, text, os.path.abspath(point))
        return point
    place = f"{layer.path if layer.own else os.path.dirname(point)}/mapped"
    with lowers_shown(driver, layer, options.maps if shifted else None, place) as lowers:
        mount = assemble(
            driver,
            layer,
            read_only=read_only,
            lowers=lowers,
            data=data,
            flags=flags,
            label=options.label,
        )
        try:
            mount_overlay(mount, os.path.abspath(point))
        except OSError as error:
            raise DriverError(
                f"creating overlay mount to {point}: {error.strerror or error}",
                hint="the kernel log (dmesg) has the details",
            ) from error
    return point


def _check_shift(driver: OverlayDriver, layer: layout.LayerDir, options: MountOptions) -> None:
    if options.layer_maps or not driver.can_shift(options.maps):
        raise DriverError(
            f"layer {layer.id} has other ID maps than the mount asks for: shifting not enabled",
            hint="make the layer with the maps that it will be mounted with",
        )


@contextmanager
def lowers_shown(
    driver: OverlayDriver, layer: layout.LayerDir, maps: IDMaps | None, place: str
) -> Iterator[list[str]]:
    """The lower directories, through temporary ID-mapped mounts of their homes if maps are given.

    They are attached in the folder ``place``; one mount of a home shows all layers in it. Contents
    that the layer rotated away are its own and have their final owners already. What is
    linked to an additional layer store is elsewhere and has a mount of its own.
    """
    lowers = lower_directories(driver, layer)
    if maps is None:
        yield lowers
        return
    from cstorage.drivers.idmapped import mapped_directories

    homes = [home for home, _ in driver.homes.all if any(p.startswith(f"{home}/") for p in lowers)]
    linked = [path for path in lowers if os.path.islink(path)]
    targets = [os.path.realpath(path) for path in linked]
    with mapped_directories([*homes, *targets], place, maps) as mapped:
        moved = []
        for path in lowers:
            if path in linked:
                moved.append(mapped[len(homes) + linked.index(path)])
                continue
            if path.startswith(f"{layer.path}/diff"):
                moved.append(path)
                continue
            for home, target in zip(homes, mapped, strict=False):
                if path.startswith(f"{home}/"):
                    moved.append(target + path[len(home) :])
                    break
            else:
                moved.append(path)
        yield moved


def is_shifted(point: str) -> bool:
    """Whether the mount shows other owners than the disk has (the kernel lists its lowers)."""
    with open("/proc/self/mountinfo", "rb") as mounts:
        for line in mounts:
            fields = line.split(b" ")
            if fields[4] == os.fsencode(os.path.abspath(point)):
                return b"/mapped/" in line
    return False


def flag_words(flags: Flags) -> list[str]:
    """Mount flags as the words a mount program understands."""
    words = (("ro", 1), ("nosuid", 2), ("nodev", 4), ("noexec", 8), ("noatime", 1 << 10))
    return [word for word, bit in words if flags.legacy & bit]


def remember_mount_program(home: str) -> None:
    """Tell other tools that layers here were written with a mount program."""
    path = f"{home}/.has-mount-program"
    try:
        with open(path, encoding="ascii") as file:
            if file.read(16).strip() == "true":
                return
    except (OSError, UnicodeDecodeError):
        pass
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        os.write(descriptor, b"true")
    finally:
        os.close(descriptor)


def _forget_volatile(path: str) -> None:
    """Remove the mark that an earlier volatile mount may have left after a crash.

    The kernel refuses to mount over it, because content may be missing; whoever asks for a volatile
    mount has accepted that.
    """
    from cstorage.drivers.removal import remove_tree

    remove_tree(f"{path}/work/work/incompat")


def release(path: str, mount_program: str = "") -> None:
    """Detach everything mounted inside a layer directory; renew the mount point.

    The fresh directory renamed over ``merged`` also drops copies of the mount that other mount
    namespaces still hold.
    """
    from cstorage.drivers.fuse import unmount as unmount_fuse

    merged = f"{path}/merged"
    while is_mount_point(merged):
        if not (unmount_fuse(merged) if mount_program else detach(merged)):
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
