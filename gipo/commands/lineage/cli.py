"""`gipo lineage DIR`: which checkpoint became which artifact, which logs that recorded, and who learned from them."""

import sys
from collections.abc import Sequence
from pathlib import Path

from gipo.commands.lineage.graph import build
from gipo.commands.lineage.records import scan
from gipo.commands.lineage.text import text
from gipo.common import extras
from gipo.common.boundary import DEBUG_HELP
from gipo.common.errors import UserError
from gipo.common.files import refuse_to_replace
from gipo.common.parsing import Parser, path


def main(args: Sequence[str]) -> None:
    """Print the lineage of a folder as text, and write it as a picture.

    Raises:
        UserError: when there is no such folder, or the picture cannot be written.
    """
    parser = Parser(prog="gipo lineage", description=__doc__, epilog=DEBUG_HELP)
    parser.add_argument("folder", type=path, metavar="DIR", help="with checkpoints, artifacts and logs, at any depth")
    parser.add_argument("--out", type=path, default=Path("lineage.png"), metavar="FILE", help="picture (%(default)s)")
    options = parser.parse_args(args)
    refuse_to_replace(options.out, ".png")
    records, unreadable = scan(options.folder)
    graph = build(records)
    print(text(graph, unreadable))
    if not graph:
        return
    try:
        from gipo.commands.lineage.picture import draw  # matplotlib takes longer to import than all else here
    except ModuleNotFoundError as error:
        if error.name not in extras.OF:
            raise
        extra = extras.install(extras.OF[error.name])
        print(f"gipo: no picture is drawn, {error.name} is not installed: {extra}", file=sys.stderr)
        return
    try:
        draw(graph, options.out, title=options.folder.resolve().name)
    except OSError as error:
        raise UserError(f"cannot write {options.out}: {error.strerror or error}") from error
    print(f"\nwritten {options.out}")
