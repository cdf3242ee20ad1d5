"""`python -m lerobot_policy_gipo`: an artifact as a LeRobot policy, and what it sampled as features of a data set."""

import sys
from collections.abc import Sequence
from pathlib import Path

from gipo.common import boundary
from gipo.common.parsing import Parser, words


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; 0 when it succeeded, 2 after one line of error."""
    return boundary.run("lerobot_policy_gipo", _command, arguments)


def _command(arguments: list[str]) -> int:
    options = build_parser().parse_args(arguments)
    if options.command == "folder":
        from lerobot_policy_gipo.folder import write_folder

        print(write_folder(Path(options.artifact), Path(options.out), options.device, options.config or ""))
    else:
        from lerobot_policy_gipo.features import add_decisions

        print(add_decisions(options.dataset, options.new, Path(options.decisions)))
    return 0


def build_parser() -> Parser:
    """The parser of both commands."""
    parser = Parser(prog="python -m lerobot_policy_gipo", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    folder = commands.add_parser("folder", help="a folder that --policy.path takes")
    folder.add_argument("artifact", type=words, metavar="FILE")
    folder.add_argument("--out", type=words, required=True, metavar="FOLDER")
    folder.add_argument("--device", type=words, required=True, metavar="NAME", help="LeRobot's name of the robot")
    folder.add_argument("--config", type=words, metavar="FILE", help="that robot's configuration, JSON or YAML")
    features = commands.add_parser("features", help="a recorded data set with what the policy sampled")
    features.add_argument("dataset", type=words, metavar="NAME", help="as LeRobot has it, user/name")
    features.add_argument("--decisions", type=words, required=True, metavar="FILE", help="what the policy wrote")
    features.add_argument("--new", type=words, required=True, metavar="NAME", help="of the data set that is written")
    return parser


if __name__ == "__main__":
    sys.exit(main())
