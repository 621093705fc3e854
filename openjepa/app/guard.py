"""How the command ends: whatever a verb raises becomes one line and an exit code."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import typer


def guarded(command: Callable[[], Any], *, debug: bool) -> int:
    """The exit code of `command`; what it raises becomes one line."""
    try:
        code = command()
        return code if isinstance(code, int) else 0
    except typer.Exit as e:
        return e.exit_code
    except typer.Abort:
        return fail("interrupted", 130)
    except KeyboardInterrupt:
        return fail("interrupted", 130)
    except BrokenPipeError:  # the reader of a pipe has seen enough
        sys.stderr.close()
        return 0
    except Exception as error:
        if debug:
            raise
        return fail(*explained(error))


def explained(error: Exception) -> tuple[str, int]:
    """One line and the exit code for an error."""
    if isinstance(error, typer.BadParameter.__bases__[0].__bases__[0]):  # typer's own: unknown verb or option
        return f"{error.format_message()} See openjepa --help.", 2  # type: ignore[attr-defined]
    if type(error).__name__ == "ValidationError":
        from openjepa.config import explain

        return explain(error), 2  # type: ignore[arg-type]
    if isinstance(error, ValueError | FileNotFoundError):
        return str(error), 2
    failure = sys.modules.get("openjepa.train.failure")
    if isinstance(error, OSError | ImportError) or (failure and isinstance(error, failure.RunFailed)):
        return str(error), 1
    return f"{type(error).__name__}: {error}. This is a fault of ours: run again with --debug and report it.", 1


def fail(line: str, code: int) -> int:
    typer.echo(f"openjepa: {' '.join(line.split())}", err=True)
    return code
