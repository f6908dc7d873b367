"""``cstorage``: from the words of the command line to a handler and an exit status.

Order of work, which decides the error that wins (cli.md §1.1): global flags, defaults, command,
its flags, number of arguments, user namespace, log level, opening the store, the command. So a
wrong word is reported without touching the store. The only exit statuses: 0, 1, 125; 2 for a
defect of ours, 130 after an interrupt, 141 when the reader of standard output went away.

Nothing here imports click: a lookup answers in less time than that import takes. Usage texts and
completion go through ``clickapp``, which is built from the same table.
"""

from __future__ import annotations

import os
import sys

from cstorage.cli import defaults, goflags
from cstorage.cli.command import GLOBAL_FLAGS, HELP_FLAG, UNLIMITED, flags_of
from cstorage.cli.invocation import (
    BAD_FLAG,
    BROKEN_PIPE,
    FAILED,
    INTERNAL,
    INTERRUPTED,
    OK,
    Invocation,
    Output,
    OutputRefused,
)
from cstorage.cli.quoting import well_formed
from cstorage.cli.table import find
from cstorage.cli.wording import FileRefused, describe, log_line
from cstorage.errors import DriverNotSupported, StorageError
from journal.plain import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from cstorage.cli.command import Command
    from cstorage.cli.goflags import Flag, Outcome, Value
    from cstorage.config import StoreOptions
    from cstorage.store.store import Store

PROGRAM = "cstorage"
ORIGINAL = "containers-storage"
COMPLETION = "_CSTORAGE_COMPLETE"
"""The variable through which a shell asks click for completions."""


def entry() -> NoReturn:
    """The console script: ``main``, without the costs that a process of a moment need not pay.

    Collecting cycles while modules are imported finds nothing, and taking the interpreter down
    object by object frees what the kernel frees anyway: together a quarter of a look-up's time
    (docs/decisions/0031-quick-start-and-end.md). Files are closed and output is flushed before.
    """
    import gc

    gc.set_threshold(100_000, 20, 100)
    status = main()
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except (OSError, ValueError, AttributeError):
        pass  # reported by main, or there is no such stream
    os._exit(status)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line (``sys.argv`` by default); returns the exit status, never raises."""
    words = list(sys.argv if argv is None else argv)
    if COMPLETION in os.environ:
        from cstorage.cli.clickapp import complete

        return complete(COMPLETION)
    out = Output.standard()
    try:
        status = CommandLine(words, out).run()
        out.flush()
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        _forget_stdout()
        return BROKEN_PIPE
    except (OutputRefused, OSError) as error:  # output, or closing the store
        _forget_stdout()
        _complain(out, describe(error))
        return FAILED
    return status


class CommandLine:
    """One command line on its way through the steps."""

    def __init__(self, words: Sequence[str], out: Output) -> None:
        self.argv0 = _as_typed(words[0] if words else PROGRAM)
        self.words = words[1:]
        self.program = ORIGINAL if os.path.basename(self.argv0) == ORIGINAL else PROGRAM
        self.out = out
        self.options: StoreOptions | None = None
        """What the configuration says and no flag does; None if it was not read."""

    def run(self) -> int:
        """All steps; the exit status."""
        first = goflags.parse(self.words, (*GLOBAL_FLAGS, HELP_FLAG), {})
        if first.failed:
            return self._bad_global_flag(first)
        values = first.values
        if values.pop("help"):
            self._overview(values, with_flags=False)
            self.out.write(self._flag_list((*GLOBAL_FLAGS, HELP_FLAG), {**values, "help": True}))
            for spelling in first.warnings:
                self.out.error(
                    f"Warning: '{spelling}' is deprecated, use '--{spelling[1:]}' instead."
                )
            return OK
        if not first.rest:
            self._overview(values)
            return FAILED
        trouble: Exception | None = None
        try:
            if defaults.given(values):
                defaults.check_named()
            else:
                values, self.options = defaults.configured(values)
        except (StorageError, OSError) as error:
            trouble = error
        typed, *rest = first.rest
        command = find(typed)
        if command is None:
            self.out.line(f"{typed}: unrecognized command.")
            return FAILED
        second = goflags.parse(rest, flags_of(command), self._before_command(command, values))
        if second.failed:
            return self._bad_command_flag(typed, command, second)
        values, args = second.values, second.rest
        if len(args) < command.least:
            self.out.line(f"{typed}: more arguments required.")
            self._usage(typed, command, values)
            return FAILED
        if command.most != UNLIMITED and len(args) > command.most:
            self.out.line(f"{typed}: too many arguments ([{' '.join(args)}]).")
            self._usage(typed, command, values)
            return FAILED
        return self._in_namespace(command, typed, args, values, trouble)

    def _before_command(self, command: Command, values: dict[str, Value]) -> dict[str, Value]:
        """What the second parse starts from: without root's powers a namespace is the default."""
        if not values["unshare"] and command.name != "unshare":
            values["unshare"] = defaults.rootless()
        return values

    def _in_namespace(
        self,
        command: Command,
        typed: str,
        args: list[str],
        values: dict[str, Value],
        trouble: Exception | None,
    ) -> int:
        if values["unshare"]:
            from cstorage.cli.namespace import configured, run_inside

            if not configured():
                return run_inside(lambda: self._work(command, typed, args, values, trouble))
        return self._work(command, typed, args, values, trouble)

    def _work(
        self,
        command: Command,
        typed: str,
        args: list[str],
        values: dict[str, Value],
        trouble: Exception | None,
    ) -> int:
        """Open the store and run the command; every expected error becomes one line."""
        debug = bool(values["debug"])
        try:
            if trouble is not None:
                raise trouble
            if debug:
                from cstorage.cli.log import show_debug_lines

                show_debug_lines(values, self.options.notes if self.options else ())
            store = _open(values, f"{self.program} {typed}", self.options)
        except (StorageError, OSError) as error:
            if isinstance(error, DriverNotSupported) and error.context.startswith("failed to Get"):
                self.out.error(log_line("error", error.context[:1].upper() + error.context[1:]))
            self.out.line(f"error initializing: {describe(error)}")
            return FAILED
        except Exception as error:
            return self._defect(error, debug)
        try:
            handler = _load(command.handler)
            return handler(
                Invocation(
                    command=command,
                    typed=typed,
                    args=args,
                    values=values,
                    store=store,
                    out=self.out,
                    configured=self.options is not None,
                )
            )
        except (BrokenPipeError, OutputRefused):
            raise
        except (StorageError, OSError, FileRefused) as error:
            bare = isinstance(error, OSError) and error.filename is None
            where = f"{typed} in {values['graph']}: " if bare and error.args[1:] else ""
            self.out.error(f"{where}{describe(error)}")
            return FAILED
        except Exception as error:
            return self._defect(error, debug)
        finally:
            store.close()

    # -- what goes wrong before the store ---------------------------------------------------------

    def _bad_global_flag(self, parsed: Outcome) -> int:
        flags = (*GLOBAL_FLAGS, HELP_FLAG)
        for report in parsed.reports:
            if report == goflags.USAGE:
                self._overview(parsed.values)
            else:
                see = PROGRAM if self.program == PROGRAM else ORIGINAL
                prefix = "" if self.argv0 == see else f"{self.argv0} "
                self.out.error(f"{report}\nSee '{prefix}{see} --help'.")
        last = parsed.reports[-1] or "flag: help requested"
        self.out.line(f"{last} while parsing arguments (1)")
        self._overview(parsed.values, with_flags=False)
        self.out.error_write(self._flag_list(flags, parsed.values))
        return FAILED

    def _bad_command_flag(self, typed: str, command: Command, parsed: Outcome) -> int:
        for report in parsed.reports:
            if report == goflags.USAGE:
                self._usage(typed, command, parsed.values)
            else:
                self.out.error(f"{report}\nSee '{self.argv0} {typed} --help'.")
        return BAD_FLAG

    def _overview(self, values: dict[str, Value], *, with_flags: bool = True) -> None:
        from cstorage.cli.clickapp import group

        self.out.write(group(self.program).overview())
        if with_flags:
            self.out.error_write(self._flag_list((*GLOBAL_FLAGS, HELP_FLAG), values))

    def _usage(self, typed: str, command: Command, values: dict[str, Value]) -> None:
        from cstorage.cli.clickapp import group

        self.out.write(group(self.program).usage_of(typed, command))
        self.out.error_write(self._flag_list(flags_of(command), values))

    @staticmethod
    def _flag_list(flags: Sequence[Flag], values: dict[str, Value]) -> str:
        from cstorage.cli.usage import flag_list

        return flag_list(flags, values, os.environ.get("HOME", ""))

    def _defect(self, error: Exception, debug: bool) -> int:
        """An error nobody expected: one line, or the trace with ``--debug``."""
        if debug:
            import traceback

            self.out.error_write("".join(traceback.format_exception(error)))
        else:
            text = describe(error)
            self.out.error(
                f"internal error: {type(error).__name__}: {text}; run again with --debug"
            )
        return INTERNAL


def _as_typed(argv0: str) -> str:
    """The program's name as the user typed it, as far as that can be known.

    A script found along PATH is started under its whole path, a compiled program under its name.
    """
    folder, name = os.path.split(argv0)
    return name if folder and folder in os.get_exec_path() else argv0


def _open(values: dict[str, Value], program: str, configured: StoreOptions | None) -> Store:
    from cstorage.store.opening import open_store

    options = values["storage_opt"]
    assert isinstance(options, tuple)
    at, kept_s = None, 0
    if values["when"]:
        from cstorage.cli.going_back import moment

        at = moment(str(values["when"]))
    if values["keep_deleted"]:
        from cstorage.cli.durations import parse_ns

        kept_s = max(0, parse_ns(str(values["keep_deleted"]))) // 10**9
    return open_store(
        str(values["graph"]),
        str(values["run"]),
        str(values["storage_driver"]),
        options,
        image_store=str(values["image_store"]),
        transient=bool(values["transient_store"]),
        reason=well_formed(str(values["reason"])),
        program=program,
        taking_over=bool(values.get("in_place")),
        projection=str(values.get("projection", "")),
        keep_deleted_s=kept_s,
        at=at,
        options=configured,
    )


def _load(handler: str) -> Callable[[Invocation], int]:
    """The function ``module:function`` below ``cstorage.cli``."""
    module, _, name = handler.partition(":")
    path = f"cstorage.cli.{module}"
    __import__(path)
    function: Callable[[Invocation], int] = getattr(sys.modules[path], name)
    return function


def _forget_stdout() -> None:
    """Point standard output at nothing, so that closing it at exit cannot fail again."""
    try:
        void = os.open(os.devnull, os.O_WRONLY)
        os.dup2(void, 1)
        os.close(void)
    except OSError:
        pass


def _complain(out: Output, text: str) -> None:
    try:
        out.error(text)
    except OSError:  # there is nobody left to tell
        pass


if __name__ == "__main__":
    entry()
