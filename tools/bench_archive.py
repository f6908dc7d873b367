"""Layer import and export against the tools people use today; ratios measured in one run.

    tools/bench archive [--rounds 3] [--only debian,small,huge,image] [--kinds tar,gz,zst]
    tools/bench archive --quick            small corpora, one round: does it run, not how fast

Rules of this programme:

* Contenders take turns within every round, each in a fresh process, after a sync; so a busy
  machine is busy for all. The ratio is the median over rounds of (theirs ÷ ours) of the same round.
* For root, every run has a new ext4 of its own, in a file beside the corpora, which is given up as
  a whole afterwards. On a file system where trees were removed in the last minutes ext4 looks for
  inodes past all that were freed, 0.5 ms a file, so that each would pay for the one before.
  What is synced there goes to the disk (direct I/O), not first through the page cache of the file
  system that the file is on, which no disk has. Where that cannot be had, runs share the directory
  of the corpora, and both distortions are there.
* Our modules are byte-compiled before, as they are where the project is installed.
* ``archive`` is the archive room alone with all its duties: digests of both streams, recipe,
  manifest. ``cstorage`` is the same through the command and a store, where the layer is synced to
  disk before it counts. GNU tar and bsdtar only unpack; containers-storage does what we do but for
  the manifest and the sync; umoci unpacks and checks digests. ``GNU tar, synced`` ends when what
  it unpacked is on the disk, as our command does; ``digests`` only decodes, and computes SHA-256 of
  both streams on a second thread: a bound for whoever records them.
* Wall time is what a person waits for; the processor time of all processes beside it is disturbed
  less by whatever else the machine does, and so is the better ratio when it is busy.
* ``image``: eight layers of one image, applied to a chain of layers all at once or one after
  another, on two processors.
* Memory is the largest resident set of the process plus those of its children (``image``: the
  largest of all). What two of them share, as an import and its builder do, counts twice.
* A contender that is not installed or cannot read a format is left out, and that is said.
* Corpora: ``debian`` (debootstrap, minbase, where that works; else ``/usr``), ``small`` (50 000
  files of up to 4 KiB), ``huge`` (three files, 384 MiB, half of it incompressible).
* At the end stands each budget with the worst ratio found, and whether it is met.
"""

from __future__ import annotations

import argparse
import compileall
import hashlib
import json
import os
import random
import re
import resource
import shlex
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

REPOSITORY = Path(__file__).resolve().parent.parent
PACKERS = {"tar": None, "gz": ["gzip", "-6", "-c"], "zst": ["zstd", "-3", "-q", "-c"]}
OURS = "archive"
STORE = "cstorage"
THEIRS = "containers-storage"
SYNCED = "GNU tar, synced"
DIGESTS = "digests"
LAYERS = 8
PROCESSORS = 2
MEMORY_MAX_MIB = 100
DISK_SIZE = 8 << 30  # sparse

_IMPORT = """
import os, sys
sys.path.insert(0, sys.argv[1])
from cstorage.archive.apply import ApplyOptions, apply_layer
root = os.open(sys.argv[3], os.O_RDONLY)
with open(sys.argv[2], "rb", buffering=0) as source, open(sys.argv[4], "wb") as recipe, \
        open(sys.argv[5], "wb") as manifest:
    apply_layer(source, root, ApplyOptions(), recipe=recipe, manifest=manifest, guards=())
"""
_DIGESTS = """
import hashlib, sys
sys.path.insert(0, sys.argv[1])
from cstorage.archive.compression import Decompressor
from cstorage.archive.threads import Consumer
raw, plain = hashlib.sha256(), hashlib.sha256()
digests = Consumer(lambda item: item[0].update(item[1]), 8, "digests")
with open(sys.argv[2], "rb", buffering=0) as source:
    decoder = Decompressor(source, lambda data: digests.put((raw, data)), ahead=2 << 20)
    while data := decoder.read(2 << 20):
        if decoder.compression.name != "NONE":
            digests.put((plain, data))
digests.finish()
"""
_EXPORT = """
import os, sys
sys.path.insert(0, sys.argv[1])
from cstorage.archive.beneath import Payloads
from cstorage.archive.compression import compressing
from cstorage.archive.recipe import assemble
from cstorage.model import Compression
root = os.open(sys.argv[3], os.O_RDONLY)
with open(sys.argv[4], "rb") as recipe, open(os.devnull, "wb", buffering=0) as out, \
        Payloads([root]) as payloads, compressing(out, Compression[sys.argv[5]]) as sink:
    assemble(recipe, payloads.open, sink)
"""
_COMMAND = """
import sys
sys.path.insert(0, sys.argv.pop(1))
sys.argv[0] = "cstorage"
from cstorage.cli.main import entry
entry()
"""


class Run(NamedTuple):
    """One process: seconds on the clock, seconds of processor time, mebibytes resident."""

    wall: float
    cpu: float
    memory: float


class Family:
    """Looks now and then for the largest resident sets of the children of a process."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._peaks: dict[str, int] = {}
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._ended.wait(0.02):
            with suppress(OSError):
                for task in os.listdir(f"/proc/{self._pid}/task"):
                    listed = Path(f"/proc/{self._pid}/task/{task}/children").read_text()
                    for child in listed.split():
                        with suppress(OSError):
                            text = Path(f"/proc/{child}/status").read_text()
                            if found := re.search(r"VmHWM:\s+(\d+) kB", text):
                                self._peaks[child] = int(found[1])

    def end(self) -> float:
        """Mebibytes of all of them together."""
        self._ended.set()
        self._thread.join()
        return sum(self._peaks.values()) / 1024


def measure(command: list[str | Path], cwd: Path, *, family: bool = True) -> Run:
    """Run to the end; raises ``CalledProcessError`` if it fails.

    ``family``: the children's memory is added; otherwise the largest counts.
    """
    # Not all file systems: what others write elsewhere is nothing that a run waits for.
    subprocess.run(["sync", "-f", cwd], check=True)
    before = time.perf_counter()
    process = subprocess.Popen(
        command, cwd=cwd, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    assert process.stderr is not None
    watch = Family(process.pid) if family else None
    message = process.stderr.read()
    _, status, usage = os.wait4(process.pid, 0)
    wall = time.perf_counter() - before
    beside = watch.end() if watch is not None else 0.0
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command, stderr=message)
    return Run(wall, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024 + beside)


@contextmanager
def ground(base: Path) -> Iterator[Path]:
    """An empty directory for one run, below ``base``; nothing is left of it."""
    work = Path(tempfile.mkdtemp(dir=base))
    image = base / f"{work.name}.disk"
    try:
        mounted = not os.geteuid() and make_disk(image, work)
        try:
            yield work
        finally:
            if mounted:
                subprocess.run(["umount", "-R", work], check=True)
    finally:
        shutil.rmtree(work, ignore_errors=True)
        image.unlink(missing_ok=True)


def make_disk(image: Path, target: Path) -> bool:
    """Mount a new file system; False if that does not work here."""
    with image.open("wb") as out:
        out.truncate(DISK_SIZE)
    loop = ""
    try:
        # Tables are initialised when they are needed: nothing goes on in the background.
        output(["mkfs.ext4", "-q", "-E", "lazy_itable_init=1", image])
        loop = output(["losetup", "--direct-io=on", "-f", "--show", image])
        output(["mount", "-o", "noinit_itable", loop, target])
    except (OSError, subprocess.CalledProcessError) as error:
        print(f"no file system of its own for this run: {error}", file=sys.stderr)
        return False
    finally:
        if loop:
            output(["losetup", "-d", loop])  # when it is no longer mounted
    return True


def output(command: list[str | Path]) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


# -- corpora ---------------------------------------------------------------------------------------


def make_debian(tree: Path, share: int) -> None:
    if share == 1 and os.geteuid() == 0 and shutil.which("debootstrap"):
        done = subprocess.run(
            ["debootstrap", "--variant=minbase", "stable", tree], capture_output=True, check=False
        )
        if done.returncode == 0:
            return
        print("debootstrap failed, taking /usr/share instead", file=sys.stderr)
    tree.mkdir(exist_ok=True)
    source = "/usr/share" if share == 1 else os.path.dirname(os.__file__)
    subprocess.run(["cp", "-a", source, tree], check=True)


def make_small(tree: Path, share: int, seed: int = 1) -> None:
    noise = random.Random(seed)
    for folder in range(500 // share):
        path = tree / f"{folder % 20:02}" / f"{folder:03}"
        path.mkdir(parents=True)
        for number in range(100):
            text = b"%d:%d " % (folder, number)
            (path / f"file-{number:03}.txt").write_bytes(text * noise.randrange(0, 400))


def make_huge(tree: Path, share: int) -> None:
    tree.mkdir()
    noise = random.Random(1)
    for number in range(3):
        with open(tree / f"huge-{number}", "wb") as out:
            for piece in range(128 // share):
                out.write(noise.randbytes(1 << 19) + b"%08d" % piece * (1 << 16))


MAKERS = {"debian": make_debian, "small": make_small, "huge": make_huge}


def corpus(base: Path, name: str, kinds: list[str], share: int) -> dict[str, Path]:
    """Archives of one corpus (or 1/``share`` of it), made once and kept in ``base``."""
    label, name = name, name if share == 1 else f"{name}-{share}"
    plain = base / f"{name}.tar"
    if not plain.exists():
        tree = base / name
        shutil.rmtree(tree, ignore_errors=True)
        print(f"making corpus {name}", file=sys.stderr)
        MAKERS[label](tree, share)
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
    shutil.copyfile(archive, blobs / digest)
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


def ours(graph: Path, run: Path, driver: str) -> list[str | Path]:
    """The command on a store of ours; containers-storage takes the same arguments."""
    return [
        sys.executable, "-c", _COMMAND, REPOSITORY, "--graph", graph, "--run", run,
        "--storage-driver", driver,
    ]  # fmt: skip


def theirs(graph: Path, run: Path, driver: str) -> list[str | Path]:
    """The original's command on a store of its own."""
    return [THEIRS, "--graph", graph, "--run", run, "--storage-driver", driver]


def import_commands(archive: Path, kind: str, work: Path) -> dict[str, list[str | Path]]:
    """Command of each contender; ``work`` is empty and removed afterwards."""
    commands: dict[str, list[str | Path]] = {
        OURS: [
            sys.executable, "-c", _IMPORT, REPOSITORY, archive, work / "tree", work / "recipe",
            work / "manifest",
        ],
        STORE: [*ours(work / "own-graph", work / "own-run", "vfs"), "import-layer", "-f", archive],
    }  # fmt: skip
    commands[DIGESTS] = [sys.executable, "-c", _DIGESTS, REPOSITORY, archive]
    if shutil.which(THEIRS) and os.geteuid() == 0:
        store = theirs(work / "graph", work / "run", "vfs")
        commands[THEIRS] = [*store, "import-layer", "-f", archive]
    if shutil.which("umoci") and os.geteuid() == 0 and kind != "zst":
        commands["umoci"] = [
            "umoci", "unpack", "--image", f"{work / 'layout'}:bench", work / "bundle",
        ]  # fmt: skip
    if shutil.which("tar"):
        unpack: list[str | Path] = ["tar", "-C", work / "tree", "-xpf", archive]
        commands["GNU tar"] = unpack
        commands[SYNCED] = shell([unpack, ["sync", "-f", work]], together=False)
    if shutil.which("bsdtar"):
        commands["bsdtar"] = ["bsdtar", "-C", work / "tree", "-xpf", archive]
    return commands


def bench_import(archive: Path, kind: str, base: Path, rounds: int) -> dict[str, list[Run]]:
    runs: dict[str, list[Run]] = {}
    names = list(import_commands(archive, kind, base))
    for number in range(rounds):
        # Another one begins each time: whoever follows a large removal pays for some of it.
        for name in names[number % len(names) :] + names[: number % len(names)]:
            with ground(base) as work:
                (work / "tree").mkdir()
                if name == "umoci":
                    oci_layout(archive, kind, work / "layout")
                command = import_commands(archive, kind, work)[name]
                try:
                    runs.setdefault(name, []).append(measure(command, work))
                except subprocess.CalledProcessError as error:
                    left_out(name, error)
    return runs


def bench_export(archive: Path, base: Path, rounds: int, *, packed: bool) -> dict[str, list[Run]]:
    """The archive out again from what each imported: byte for byte, or compressed with gzip."""
    runs: dict[str, list[Run]] = {}
    with ground(base) as work:
        (work / "tree").mkdir()
        commands = import_commands(archive, "tar", work)
        measure(commands[OURS], work)
        exports: dict[str, list[str | Path]] = {
            OURS: [
                sys.executable, "-c", _EXPORT, REPOSITORY, archive, work / "tree", work / "recipe",
                "GZIP" if packed else "NONE",
            ],
        }  # fmt: skip
        how = "-c" if packed else "-u"
        stores = {STORE: ours(work / "own-graph", work / "own-run", "vfs")}
        if THEIRS in commands:
            stores[THEIRS] = theirs(work / "graph", work / "run", "vfs")
        for name, store in stores.items():
            imported = [*store, "import-layer", "-i", "bench", "-f", archive]
            measure(imported, work)
            exports[name] = [*store, "diff", how, "bench"]
        names = list(exports)
        for number in range(rounds):
            for name in names[number % len(names) :] + names[: number % len(names)]:
                command = exports[name]
                runs.setdefault(name, []).append(measure(command, work))
    return runs


def make_image(base: Path, share: int) -> list[Path]:
    """Archives of eight layers, gzip, each with files of its own."""
    found = []
    for number in range(LAYERS):
        path = base / f"layer-{share}-{number}.tar.gz"
        if not path.exists():
            tree = base / "layer"
            shutil.rmtree(tree, ignore_errors=True)
            make_small(tree / str(number), 10 * share, seed=number)
            (tree / "blob").write_bytes(random.Random(number).randbytes((24 << 20) // share))
            subprocess.run(["tar", "-C", tree, "-czf", base / "making", "."], check=True)
            (base / "making").rename(path)
            shutil.rmtree(tree)
        found.append(path)
    return found


def shell(commands: list[list[str | Path]], *, together: bool) -> list[str | Path]:
    """One process that runs them all, at once or in turn, and fails if one fails."""
    lines = [shlex.join(map(str, command)) + " >/dev/null" for command in commands]
    if not together:
        return ["sh", "-ec", "\n".join(lines)]
    started = "".join(f'{line} & pids="$pids $!"\n' for line in lines)
    return ["sh", "-ec", started + 'for pid in $pids; do wait "$pid"; done']


def bench_image(layers: list[Path], base: Path, rounds: int) -> dict[str, list[Run]]:
    """Eight layers into a chain of eight on overlay, on two processors."""
    stores = {STORE: ours}
    if shutil.which(THEIRS):
        stores[THEIRS] = theirs
    turns = [(name, together) for name in stores for together in (True, False)]
    runs: dict[str, list[Run]] = {}
    for number in range(rounds):
        for name, together in turns[number % len(turns) :] + turns[: number % len(turns)]:
            label = name if together else f"{name}, in turn"
            with ground(base) as work:
                store = stores[name](work / "graph", work / "run", "overlay")
                try:
                    runs.setdefault(label, []).append(bench_chain(store, layers, work, together))
                except subprocess.CalledProcessError as error:
                    left_out(label, error)
    return runs


def bench_chain(store: list[str | Path], layers: list[Path], work: Path, together: bool) -> Run:
    """A chain of empty layers, made before, filled from the archives."""
    parent: list[str] = []
    for index in range(len(layers)):
        measure([*store, "create-layer", "-i", f"l{index}", *parent], work)
        parent = [f"l{index}"]
    fill = [[*store, "applydiff", "-f", path, f"l{index}"] for index, path in enumerate(layers)]
    return measure(on_two(shell(fill, together=together)), work, family=False)


def left_out(name: str, error: subprocess.CalledProcessError) -> None:
    reason = (error.stderr or "").strip().splitlines()[-1:]
    print(f"  {name} left out: {reason}", file=sys.stderr)


def on_two(command: list[str | Path]) -> list[str | Path]:
    """The command bound to two processors where there are more."""
    allowed = sorted(os.sched_getaffinity(0))[:PROCESSORS]
    if len(os.sched_getaffinity(0)) <= PROCESSORS or not shutil.which("taskset"):
        return command
    return ["taskset", "-c", ",".join(map(str, allowed)), *command]


class Budget:
    """What was promised, and the worst that was found."""

    def __init__(self) -> None:
        self.worst: dict[str, tuple[float, str]] = {}
        self.most: dict[str, float] = {
            f"import, cpu of {OURS} ÷ {THEIRS}": 0.5,
            f"import, wall of {OURS} ÷ {THEIRS}": 0.5,
            f"import, cpu of {STORE} ÷ {THEIRS}": 0.5,
            f"import, wall of {STORE} ÷ {THEIRS}": 0.5,
            f"import, wall of {OURS} ÷ GNU tar": 1.0,
            f"import, wall of {STORE} ÷ GNU tar": 1.0,
            f"import, wall of {STORE} ÷ {SYNCED}": 1.0,
            f"export, cpu of {OURS} ÷ {THEIRS}": 0.5,
            f"export, wall of {OURS} ÷ {THEIRS}": 0.5,
            f"export, cpu of {STORE} ÷ {THEIRS}": 0.5,
            f"export, wall of {STORE} ÷ {THEIRS}": 0.5,
            "MiB of memory": MEMORY_MAX_MIB,
        }

    def note(self, key: str, value: float, title: str) -> None:
        if key in self.most and value > self.worst.get(key, (0.0, ""))[0]:
            self.worst[key] = (value, title)

    def take(self, what: str, title: str, runs: dict[str, list[Run]]) -> None:
        for own in (OURS, STORE):
            mine = runs.get(own, [])
            if mine:
                self.note("MiB of memory", max(run.memory for run in mine), f"{title}, {own}")
            for other in (THEIRS, "GNU tar", SYNCED):
                pairs = list(zip(mine, runs.get(other, []), strict=False))
                if not pairs:
                    continue
                wall = statistics.median(a.wall / b.wall for a, b in pairs)
                cpu = statistics.median(a.cpu / b.cpu for a, b in pairs)
                self.note(f"{what}, wall of {own} ÷ {other}", wall, title)
                self.note(f"{what}, cpu of {own} ÷ {other}", cpu, title)

    def show(self) -> None:
        print("\nbudgets (worst of what was measured)")
        for key, most in self.most.items():
            value, title = self.worst.get(key, (0.0, "not measured"))
            verdict = "" if not value else "met" if value <= most else "NOT MET"
            print(f"  {key:45} {value:7.2f} ≤ {most:<6g} {verdict:8} {title}")


def report(title: str, runs: dict[str, list[Run]], base: str = OURS) -> None:
    """One line per contender; a ratio above 1 means that ``base`` took less."""
    print(f"\n{title} (load {os.getloadavg()[0]:.1f})")
    print(
        f"  {'':28} {'wall s':>8} {'cpu s':>8} {'MiB':>6}   {base} is … times as fast (wall, cpu)"
    )
    mine = runs.get(base, [])
    for name, own in sorted(runs.items(), key=lambda item: item[0] != base):
        ratio = ""
        if name != base and mine and len(own) == len(mine):
            wall = statistics.median(b.wall / a.wall for a, b in zip(mine, own, strict=True))
            cpu = statistics.median(b.cpu / a.cpu for a, b in zip(mine, own, strict=True))
            ratio = f"{wall:8.2f} {cpu:8.2f}"
        print(
            f"  {name:28} {statistics.median(r.wall for r in own):8.2f}"
            f" {statistics.median(r.cpu for r in own):8.2f} {max(r.memory for r in own):6.0f}"
            f"   {ratio}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="a tenth of each corpus, one round")
    parser.add_argument(
        "--only", default="debian,small,huge,image", help="corpora and image, comma separated"
    )
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
    for package in ("cstorage", "journal"):
        compileall.compile_dir(REPOSITORY / package, quiet=2)
    # A process inherits its parent's peak as its own: keep it small.
    own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"processors {os.cpu_count()}, load {os.getloadavg()[0]:.1f}, own peak {own:.0f} MiB")
    budget = Budget()
    share, rounds = (10, 1) if options.quick else (1, options.rounds)
    for name in options.only.split(","):
        if name == "image":
            runs = bench_image(make_image(options.corpus, share), options.corpus, rounds)
            report(f"{LAYERS} layers of one image, {PROCESSORS} processors", runs, STORE)
            continue
        archives = corpus(options.corpus, name, options.kinds.split(","), share)
        for kind, archive in archives.items():
            size = archive.stat().st_size / (1 << 20)
            runs = bench_import(archive, kind, options.corpus, rounds)
            title = f"import {name} {kind} ({size:.0f} MiB)"
            report(title, runs)
            budget.take("import", title, runs)
        for packed in (False, True) if not options.no_export else ():
            plain = options.corpus / f"{name}{f'-{share}' if options.quick else ''}.tar"
            runs = bench_export(plain, options.corpus, rounds, packed=packed)
            title = f"export {name}, {'gzip' if packed else 'plain'}"
            report(title, runs)
            budget.take("export", title, runs)
    budget.show()


if __name__ == "__main__":
    main()
