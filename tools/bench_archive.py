"""Layer import and export against the tools people use today; ratios measured in one run.

    python tools/bench_archive.py [--rounds 3] [--only debian,small,huge] [--kinds tar,gz,zst]

Rules of this programme:

* Contenders take turns within every round, each in a fresh process and a fresh directory, after a
  ``sync``; so a busy machine is busy for all. The ratio is the median over rounds of
  (theirs ÷ ours) of the same round.
* Ours does all its duties: digests of both streams, recipe, manifest. GNU tar and bsdtar only
  unpack; containers-storage does what we do but for the manifest; umoci unpacks and checks digests.
* Memory is the largest resident set of the process or of a process it waited for.
* A contender that is not installed or cannot read a format is left out, and that is said.
* Corpora: ``debian`` (debootstrap, minbase, where that works; else ``/usr``), ``small`` (50 000
  files of up to 4 KiB), ``huge`` (three files, 384 MiB, half of it incompressible).
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

REPOSITORY = Path(__file__).resolve().parent.parent
PACKERS = {"tar": None, "gz": ["gzip", "-6", "-c"], "zst": ["zstd", "-3", "-q", "-c"]}
OURS = "cstorage"

_IMPORT = """
import os, sys
sys.path.insert(0, sys.argv[1])
from cstorage.archive.apply import ApplyOptions, apply_layer
root = os.open(sys.argv[3], os.O_RDONLY)
with open(sys.argv[2], "rb", buffering=0) as source, open(sys.argv[4], "wb") as recipe, \
        open(sys.argv[5], "wb") as manifest:
    apply_layer(source, root, ApplyOptions(), recipe=recipe, manifest=manifest)
"""
_EXPORT = """
import hashlib, os, sys
sys.path.insert(0, sys.argv[1])
from cstorage.archive.beneath import Payloads
from cstorage.archive.recipe import assemble
root = os.open(sys.argv[3], os.O_RDONLY)
with open(sys.argv[4], "rb") as recipe, open(os.devnull, "wb", buffering=0) as out, \
        Payloads([root]) as payloads:
    assemble(recipe, payloads.open, out)
"""


class Run(NamedTuple):
    """One process: seconds on the clock, seconds of processor time, mebibytes resident."""

    wall: float
    cpu: float
    memory: float


def measure(command: list[str | Path], cwd: Path) -> Run:
    """Run to the end; raises ``CalledProcessError`` if it fails."""
    os.sync()
    before = time.perf_counter()
    process = subprocess.Popen(
        command, cwd=cwd, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    assert process.stderr is not None
    message = process.stderr.read()
    _, status, usage = os.wait4(process.pid, 0)
    wall = time.perf_counter() - before
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command, stderr=message)
    return Run(wall, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024)


# -- corpora ---------------------------------------------------------------------------------------


def make_debian(tree: Path) -> None:
    if os.geteuid() == 0 and shutil.which("debootstrap"):
        done = subprocess.run(
            ["debootstrap", "--variant=minbase", "stable", tree], capture_output=True, check=False
        )
        if done.returncode == 0:
            return
        print("debootstrap failed, taking /usr instead", file=sys.stderr)
    tree.mkdir(exist_ok=True)
    subprocess.run(["cp", "-a", "/usr/share", tree], check=True)


def make_small(tree: Path) -> None:
    noise = random.Random(1)
    for folder in range(500):
        path = tree / f"{folder % 20:02}" / f"{folder:03}"
        path.mkdir(parents=True)
        for number in range(100):
            text = b"%d:%d " % (folder, number)
            (path / f"file-{number:03}.txt").write_bytes(text * noise.randrange(0, 400))


def make_huge(tree: Path) -> None:
    tree.mkdir()
    noise = random.Random(1)
    for number in range(3):
        with open(tree / f"huge-{number}", "wb") as out:
            for piece in range(128):
                out.write(noise.randbytes(1 << 19) + b"%08d" % piece * (1 << 16))


MAKERS = {"debian": make_debian, "small": make_small, "huge": make_huge}


def corpus(base: Path, name: str, kinds: list[str]) -> dict[str, Path]:
    """Archives of one corpus, made once and kept in ``base``."""
    plain = base / f"{name}.tar"
    if not plain.exists():
        tree = base / name
        shutil.rmtree(tree, ignore_errors=True)
        print(f"making corpus {name}", file=sys.stderr)
        MAKERS[name](tree)
        subprocess.run(["tar", "-C", tree, "-cf", base / "making", "."], check=True)
        (base / "making").rename(plain)
        shutil.rmtree(tree)
    found = {}
    for kind in kinds:
        packer = PACKERS[kind]
        path = plain if packer is None else base / f"{name}.tar.{kind}"
        if packer is not None and not path.exists():
            with open(plain, "rb") as source, open(base / "making", "wb") as out:
                subprocess.run(packer, stdin=source, stdout=out, check=True)
            (base / "making").rename(path)
        found[kind] = path
    return found


# -- contenders ------------------------------------------------------------------------------------


def oci_layout(archive: Path, kind: str, layout: Path) -> None:
    """A one-layer OCI image around the archive, for umoci."""
    blobs = layout / "blobs" / "sha256"
    blobs.mkdir(parents=True)

    def blob(data: bytes) -> dict[str, object]:
        digest = hashlib.sha256(data).hexdigest()
        (blobs / digest).write_bytes(data)
        return {"digest": f"sha256:{digest}", "size": len(data)}

    with open(archive, "rb") as source:
        digest = hashlib.file_digest(source, "sha256").hexdigest()
    os.link(archive, blobs / digest)
    plain = archive.with_suffix("") if kind != "tar" else archive
    with open(plain, "rb") as source:
        diff_id = hashlib.file_digest(source, "sha256").hexdigest()
    layer = {
        "mediaType": "application/vnd.oci.image.layer.v1.tar" + ("+gzip" if kind == "gz" else ""),
        "digest": f"sha256:{digest}",
        "size": archive.stat().st_size,
    }
    config = {
        "architecture": "amd64", "os": "linux", "config": {},
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{diff_id}"]},
    }  # fmt: skip
    manifest = {
        "schemaVersion": 2,
        "config": {
            "mediaType": "application/vnd.oci.image.config.v1+json",
            **blob(json.dumps(config).encode()),
        },
        "layers": [layer],
    }
    entry = {
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        **blob(json.dumps(manifest).encode()),
        "annotations": {"org.opencontainers.image.ref.name": "bench"},
    }
    (layout / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
    (layout / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [entry]}))


def import_commands(archive: Path, kind: str, work: Path) -> dict[str, list[str | Path]]:
    """Command of each contender; ``work`` is empty and removed afterwards."""
    commands: dict[str, list[str | Path]] = {
        OURS: [
            sys.executable, "-c", _IMPORT, REPOSITORY, archive, work / "tree", work / "recipe",
            work / "manifest",
        ],
    }  # fmt: skip
    if shutil.which("containers-storage") and os.geteuid() == 0:
        commands["containers-storage"] = [
            "containers-storage", "--graph", work / "graph", "--run", work / "run",
            "--storage-driver", "vfs", "import-layer", "-f", archive,
        ]  # fmt: skip
    if shutil.which("umoci") and os.geteuid() == 0 and kind != "zst":
        commands["umoci"] = [
            "umoci", "unpack", "--image", f"{work / 'layout'}:bench", work / "bundle",
        ]  # fmt: skip
    if shutil.which("tar"):
        commands["GNU tar"] = ["tar", "-C", work / "tree", "-xpf", archive]
    if shutil.which("bsdtar"):
        commands["bsdtar"] = ["bsdtar", "-C", work / "tree", "-xpf", archive]
    return commands


def bench_import(archive: Path, kind: str, base: Path, rounds: int) -> dict[str, list[Run]]:
    runs: dict[str, list[Run]] = {}
    names = list(import_commands(archive, kind, base))
    for number in range(rounds):
        # Another one begins each time: whoever follows a large removal pays for some of it.
        for name in names[number % len(names) :] + names[: number % len(names)]:
            work = Path(tempfile.mkdtemp(dir=base))
            try:
                (work / "tree").mkdir()
                if name == "umoci":
                    oci_layout(archive, kind, work / "layout")
                command = import_commands(archive, kind, work)[name]
                runs.setdefault(name, []).append(measure(command, work))
            except subprocess.CalledProcessError as error:
                reason = (error.stderr or "").strip().splitlines()[-1:]
                print(f"  {name} left out: {reason}", file=sys.stderr)
            finally:
                shutil.rmtree(work, ignore_errors=True)
    return runs


def bench_export(archive: Path, base: Path, rounds: int) -> dict[str, list[Run]]:
    """The archive out again, byte for byte and uncompressed, from what each imported."""
    work = Path(tempfile.mkdtemp(dir=base))
    runs: dict[str, list[Run]] = {}
    try:
        (work / "tree").mkdir()
        commands = import_commands(archive, "tar", work)
        measure(commands[OURS], work)
        exports: dict[str, list[str | Path]] = {
            OURS: [
                sys.executable, "-c", _EXPORT, REPOSITORY, archive, work / "tree", work / "recipe"
            ],
        }  # fmt: skip
        if "containers-storage" in commands:
            measure(commands["containers-storage"], work)
            layers = work / "graph" / "vfs-layers" / "layers.json"
            key = json.loads(layers.read_text())[0]["id"]
            exports["containers-storage"] = [
                *commands["containers-storage"][:7], "diff", "-u", key
            ]  # fmt: skip
        for _ in range(rounds):
            for name, command in exports.items():
                runs.setdefault(name, []).append(measure(command, work))
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return runs


def report(title: str, runs: dict[str, list[Run]]) -> None:
    """One line per contender; a ratio above 1 means that ours took less."""
    print(f"\n{title}")
    print(f"  {'':20} {'wall s':>8} {'cpu s':>8} {'MiB':>6}   ours is … times as fast (wall, cpu)")
    ours = runs[OURS]
    for name, own in sorted(runs.items(), key=lambda item: item[0] != OURS):
        ratio = ""
        if name != OURS and len(own) == len(ours):
            wall = statistics.median(b.wall / a.wall for a, b in zip(ours, own, strict=True))
            cpu = statistics.median(b.cpu / a.cpu for a, b in zip(ours, own, strict=True))
            ratio = f"{wall:8.2f} {cpu:8.2f}"
        print(
            f"  {name:20} {statistics.median(r.wall for r in own):8.2f}"
            f" {statistics.median(r.cpu for r in own):8.2f} {max(r.memory for r in own):6.0f}"
            f"   {ratio}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", default="debian,small,huge", help="corpora, comma separated")
    parser.add_argument("--kinds", default="tar,gz,zst", help="formats, comma separated")
    parser.add_argument(
        "--corpus",
        type=Path,
        default=Path(tempfile.gettempdir()) / "bench-archive",
        help="where archives are made and kept; runs happen there, too",
    )
    parser.add_argument("--no-export", action="store_true")
    options = parser.parse_args()
    options.corpus.mkdir(parents=True, exist_ok=True)
    # A process inherits its parent's peak as its own: keep it small.
    own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"processors {os.cpu_count()}, load {os.getloadavg()[0]:.1f}, own peak {own:.0f} MiB")
    for name in options.only.split(","):
        archives = corpus(options.corpus, name, options.kinds.split(","))
        for kind, archive in archives.items():
            size = archive.stat().st_size / (1 << 20)
            runs = bench_import(archive, kind, options.corpus, options.rounds)
            report(f"import {name} {kind} ({size:.0f} MiB)", runs)
        if not options.no_export:
            plain = options.corpus / f"{name}.tar"
            report(f"export {name}", bench_export(plain, options.corpus, options.rounds))


if __name__ == "__main__":
    main()
