"""Log lines of ``--debug`` on standard error: ``time="…" level=debug msg="…"``.

Only ``--debug`` imports this module, and with it structlog. Errors and warnings that have to be
seen without ``--debug`` are formatted by ``log_line`` directly.
"""

from __future__ import annotations

import sys

from cstorage.cli.wording import log_line
from journal.plain import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import MutableMapping, Sequence

    from cstorage.cli.goflags import Value


def show_debug_lines(values: dict[str, Value], notes: Sequence[str] = ()) -> None:
    """Send every log line to standard error, beginning with the store's place and driver.

    ``notes`` are what the configuration says and nobody uses.
    """
    import structlog

    structlog.configure(
        processors=[_render],
        wrapper_class=structlog.make_filtering_bound_logger(0),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=False,
    )
    logger = structlog.get_logger()
    options = values["storage_opt"]
    assert isinstance(options, tuple)
    logger.debug(f"Root: {values['graph']}")
    logger.debug(f"Run Root: {values['run']}")
    logger.debug(f"Driver Name: {values['storage_driver']}")
    logger.debug(f"Driver Options: [{' '.join(options)}]")
    for note in notes:
        logger.debug(note)


def _render(_logger: object, level: str, event: MutableMapping[str, Any]) -> str:
    """One event as a line; further fields follow the message as ``key="value"``."""
    text = str(event.pop("event", ""))
    return log_line(level, text, event)
