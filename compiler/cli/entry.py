"""The `hqc` command: parse, dispatch, and turn every ending into one screen and an exit status.

People read stderr, programs read stdout: `-f json` prints one JSON document there for every
command and every ending. Heavy modules are imported by the commands that need them.
"""

from __future__ import annotations

import json
import os
import re
import sys
from argparse import Namespace
from collections.abc import Sequence
from contextlib import nullcontext, redirect_stdout
from typing import Any

from hqc.cli.console import COLOURS, Console, as_json
from hqc.cli.parser import parse
from hqc.cli.result import Result
from hqc.diagnostics import Diagnostic, Exit, HqcError

#: Exit status after Ctrl-C, as shells have it.
INTERRUPTED = 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command line.

    Args:
        arguments: without the program's name; None takes the process's own.

    Returns:
        The exit status; see `hqc.diagnostics.Exit`, and 130 after Ctrl-C.
    """
    argv = list(sys.argv[1:] if arguments is None else arguments)
    as_document, colour = _peek(argv)
    console = Console.on_stderr(colour)
    try:
        return _main(argv, console, as_document)
    except BrokenPipeError:  # the reader of stdout has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return Exit.OK


def _main(argv: list[str], console: Console, as_document: bool) -> int:
    command = next((a for a in argv if not a.startswith("-")), "")
    diagnostics: tuple[Diagnostic, ...] = ()
    result = Result()
    status: int
    try:
        options = parse(argv)
        if isinstance(options, str):  # --help or --version
            print(options)
            return Exit.OK
        console.quiet, options.argv = options.quiet, argv
        # what the user's own code prints is for people, too
        with redirect_stdout(sys.stderr) if as_document else nullcontext():
            result = _dispatch(options, console)
        status, diagnostics = result.exit, result.diagnostics
    except HqcError as error:
        status, diagnostics = error.exit, error.diagnostics
    except KeyboardInterrupt as error:  # a command that can go on says how
        console.close()
        console.error_line(str(error) or "interrupted; outputs are as they were before")
        status = INTERRUPTED
    except BrokenPipeError:
        raise
    except Exception as error:  # noqa: BLE001 - the last resort, which files the traceback
        from hqc.cli.crash import reproducer

        status, diagnostics = Exit.INTERNAL, (reproducer(error, argv),)
    console.close()
    console.diagnostics(diagnostics)
    if as_document:
        _print_document(command, status, diagnostics, result.document)
    elif result.text:
        print(result.text)
    sys.stdout.flush()
    return int(status)


def _dispatch(options: Namespace, console: Console) -> Result:
    from importlib import import_module

    run = getattr(import_module(options.module), options.function)
    result: Result = run(options, console)
    return result


def _print_document(
    command: str, status: int, diagnostics: Sequence[Diagnostic], document: Any
) -> None:
    whole = {
        "command": command,
        "exit": int(status),
        "diagnostics": [as_json(d) for d in diagnostics],
        "result": document,
    }
    print(json.dumps(whole, indent=2, allow_nan=False))


def _peek(argv: Sequence[str]) -> tuple[bool, str]:
    """Output format and colour, read even from command lines that do not parse."""
    line = "\x00".join(("", *argv, ""))
    as_document = re.search("\x00(-f|--format)[=\x00]?json\x00", line) is not None
    found = re.search(f"\x00--color[=\x00]({'|'.join(COLOURS)})\x00", line)
    return as_document, found[1] if found else "auto"
