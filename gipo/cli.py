"""`gipo`: the entry point; each command is a module of `gipo.commands`, imported when it is asked for."""

from collections.abc import Sequence


def main(args: Sequence[str] | None = None) -> None:
    """Entry point of `gipo`. Exit codes: 0 done, 2 bad input, 143 ended by SIGTERM after saving."""
    from gipo.commands.fit import main as run

    run(args)


if __name__ == "__main__":
    main()
