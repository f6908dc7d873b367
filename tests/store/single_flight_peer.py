"""A process that imports one archive when it is told to, and writes down whether it unpacked it.

    single_flight_peer.py GRAPH RUN DRIVER ARCHIVE FOLDER ID

Prints the layer's ID or the name of the error. While it unpacks, ``FOLDER/unpacking`` exists and
it waits for ``FOLDER/go-on``; each unpacking leaves a file ``FOLDER/unpacked-<pid>``.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import cstorage
from cstorage.archive import apply
from cstorage.errors import StorageError


def main() -> None:
    graph, run, driver, archive, folder, id_ = sys.argv[1:]
    place = Path(folder)
    real = apply.apply_layer

    def counted(*args: object, **named: object) -> object:
        (place / f"unpacked-{os.getpid()}").touch()
        (place / "unpacking").touch()
        while not (place / "go-on").exists():
            time.sleep(0.005)
        return real(*args, **named)  # type: ignore[arg-type]

    apply.apply_layer = counted  # type: ignore[assignment]
    store = cstorage.open(graph_root=graph, run_root=run, driver=driver)
    with open(archive, "rb") as source:
        try:
            print(store.import_layer(source, id=id_).id)
        except StorageError as error:
            print(type(error).__name__)
    store.close()


main()
