"""What a reader of a page types and reads, in order: fenced blocks, and code within the text."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
PROGRAMS = (
    "gipo", "gipo-demos", "gipo-deploy", "gipo-robot", "gipo-study", "python", "pip", "make", "cmake", "ray",
    "torchrun", "sha256sum", "ssh-keygen", "gpg", "apt-get", "build/cpp/controller",
)  # fmt: skip
CODE = re.compile(r"(?<!`)`([^`\n]+)`(?!`)")


@dataclass(frozen=True)
class Step:
    """Something of a page.

    Args:
        kind: `command`, `option` (of a command that the text speaks of), `name` (of a program alone), a block's
            language, or `output` for a block without one.
        text: as it stands there.
    """

    kind: str
    text: str


def chapters(page: Path) -> dict[str, list[Step]]:
    """The steps of a page by its `## ` headings; those above the first are under the page's name."""
    parts = re.split(r"^## (.*)$", page.read_text(encoding="utf-8"), flags=re.M)
    names, texts = [page.name, *parts[1::2]], parts[::2]
    return {name: found for name, text in zip(names, texts, strict=True) if (found := list(steps(text)))}


def steps(text: str) -> Iterator[Step]:
    """The steps of Markdown. A table whose head is a command has words of it in its first column."""
    for line in re.split(r"(^```.*?^```$)", text, flags=re.S | re.M):
        if line.startswith("```"):
            yield from _block(line)
            continue
        command = ""
        for row in line.splitlines():
            if not row.startswith("|"):
                command = ""
                yield from map(_code, CODE.findall(row))
            elif (head := re.match(r"\| `([\w-]+)` \|", row)) and head[1] in PROGRAMS:
                command = head[1]
            elif command and (cell := re.match(r"\| `([^`]+)`", row)):
                yield Step("command", f"{command} {cell[1]}")
                yield from map(_code, CODE.findall(row[cell.end() :]))
            else:
                yield from map(_code, CODE.findall(row))


def _block(text: str) -> Iterator[Step]:
    head, _, rest = text.partition("\n")
    language, block = head.strip("`"), rest.rsplit("```", 1)[0]
    if language != "bash":
        yield Step(language or "output", block)
        return
    for line in block.splitlines():
        if command := re.sub(r"(^|\s+)#.*", "", line).strip():
            yield Step("command", command)


def _code(text: str) -> Step:
    words = text.split()
    if words[0] in PROGRAMS:
        # `gipo test` and `gipo-deploy info` name a command; what has options or files is typed
        return Step("command" if len(words) > 2 or (words[0] in ("make", "pip") and len(words) > 1) else "name", text)
    return Step("option" if words[0].startswith("--") else "code", text)
