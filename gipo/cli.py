"""The entry points of `gipo`, `gipo-demos`, `gipo-robot` and `gipo-deploy`: a command is imported when it is asked for.

Help and a mistyped command need neither torch nor Lightning, which take seconds to import and may not be installed.
`gipo-robot` and `gipo-deploy` are imported after it is known that they are ours: a folder `robots/` or `deploy/` of a
user's that comes first in PYTHONPATH would be imported in their place.
"""

import importlib
import sys
from collections.abc import Sequence

from gipo.common.boundary import DEBUG_HELP, run
from gipo.common.errors import UserError, nearest
from gipo.common.interpreter import lean_imports
from gipo.common.working_folder import refuse_shadows

COMMANDS = {
    "fit": "train: on what is collected, or on logs",
    "validate": "evaluate a checkpoint on the episodes of validation",
    "test": "evaluate a checkpoint on more episodes, and on other goals",
    "estimate": "what a policy would return, from logs of others alone",
    "lineage": "which policies, logs and checkpoints came from which",
}
HELP = f"""usage: gipo [-h] COMMAND ...

Post-train robot policies on stale data with Gaussian Importance-sampling Policy Optimization.

  gipo fit                                         train on reach-v3 with the default recipe
  gipo fit --config metaworld_stale.yaml           a shipped configuration, found by name
  gipo fit --data.task=drawer-close-v3 --model.objective=PPOClip --model.objective.clip=0.1
  gipo fit --config runs/X/config.yaml --ckpt_path runs/X/checkpoints/last.ckpt     resume
  gipo test --config runs/X/config.yaml --ckpt_path runs/X/checkpoints/best.ckpt    evaluate
  gipo fit --config post_train.yaml --data.logs=logs/ --model.init_from=runs/X/checkpoints/best.ckpt    post-train
  gipo estimate runs/logs-0/checkpoints/last.ckpt apart/   what it would return on the robot, from logs kept apart
  gipo lineage DIR                                 which policies, logs and checkpoints came from which

commands:
{"".join(f"  {name:<11}{words}{chr(10)}" for name, words in COMMANDS.items())}
  gipo COMMAND --help                                lists the options of a command
  gipo fit --data_module=OfflineDataModule --help    those of post-training on logs
  gipo fit --model.policy.help=TokenPolicy           those of a class that an option names

{DEBUG_HELP}
"""


def main(args: Sequence[str] | None = None) -> None:
    """Entry point of `gipo`. Exit codes: 0 done, 2 bad input, 143 ended by SIGTERM after saving."""
    code = run("gipo", _command, args)
    if code:
        sys.exit(code)


def robot() -> int:
    """Entry point of `gipo-robot`."""
    return _installed("gipo-robot", "robots.cli")


def deploy() -> int:
    """Entry point of `gipo-deploy`."""
    return _installed("gipo-deploy", "deploy.cli")


def demos() -> int:
    """Entry point of `gipo-demos`."""
    return _installed("gipo-demos", "gipo.commands.demos")


def _installed(program: str, module: str) -> int:
    try:
        refuse_shadows()
    except UserError as error:
        print(f"{program}: error: {error}", file=sys.stderr)
        return 2
    code: int = importlib.import_module(module).main()
    return code


def _command(arguments: list[str]) -> int | None:
    command = next((argument for argument in arguments if argument in COMMANDS), None)
    if command is None:
        if {"-h", "--help"} & set(arguments):
            print(HELP, end="")
            sys.exit()
        known = ", ".join(COMMANDS)
        if not arguments or arguments[0].startswith("-"):
            raise UserError(f"no command is named; there are {known} (gipo --help)")
        raise UserError(f"there is no command {arguments[0]!r}; the nearest: {nearest(arguments[0], COMMANDS)}")
    if command in ("lineage", "estimate"):
        at = arguments.index(command)
        rest = arguments[:at] + arguments[at + 1 :]
        code: int | None = importlib.import_module(f"gipo.commands.{command}.cli").main(rest)
        return code
    with lean_imports():
        from gipo.commands.fit.cli import main as fit
    fit(arguments)
    return None


if __name__ == "__main__":
    main()
