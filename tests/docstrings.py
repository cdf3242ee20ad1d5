"""Docstrings whose first line does not survive being read alone, in an editor's hover: `python -m tests.docstrings`.

A pattern is a way to lean on the lines around it: a head noun that is missing ("Of a file."), a pronoun without
anything before it ("Those of the task."), a genitive without its noun ("The task's."), one or two words.
"""

import ast
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent
PACKAGES = ("gipo", "datamodules", "robots", "deploy")

PREPOSITIONS = "Above|After|Among|As|Before|Below|Beside|Between|By|For|From|In|Into|Like|Of|Through|Under|Until|With"
PREPOSITIONS += "|Within|Without"
QUESTIONS = "How|What|When|Where|Whether|Which|Who|Why"
PATTERNS = {
    # "Of a file."; not "For every age: the interquartile mean", where what it is follows the colon
    "nothing before its preposition": rf"({PREPOSITIONS})\b(?![^.]*: )",
    "begins with a pronoun": r"(It|They|Its|Their|Them|Such|Others|Another|Both|Ditto|Same)\b"
    r"|(Those|These) (of|that|which|who|whose)\b",
    "which ones?": r"Which( \w+)?( of (it|them|these|those)\b|[,.;])",
    "the same as what?": r"(The|Exactly the) (same|others?|former|latter)\b",
    "a one of nothing": r"(The|An?)( \w+)? ones?( (that|which|who|is|are)\b|[.,;:])",
    "all of what?": r"All( (that|which|who) (is|are|was|were)\b|( \w+)?[.,;])",
    # "Whether it is ours."; not the cleft of "Whether it is our output that nobody reads"
    "asks about a pronoun": rf"({QUESTIONS})( (far|long|many|much|often|well))? (?!it is (our|the|an?) [^.,]* that\b)"
    r"(they|its?|their|(this|that|these|those) (is|are|was|were|can|cannot|may|must))\b",
    "a verb's pronoun": rf"(?!({QUESTIONS})\b)\w+ (it|them)\b",
    "a pronoun before any noun": r"(?!(An?|The|One|Every|Each) )([\w`]+ ){1,4}(by|for|from|in|of|to|with) (it|them)\b",
    "a genitive without its noun": r"([\w`-]+ )?[\w`-]+'s?[.,;:]",
    "says nothing of what": r"What (is|was|are|were) \w+\.$",
}
FORMULA = re.compile(r"[=·→−(\[]")


@dataclass(frozen=True)
class Fragment:
    """The first line of a docstring, and the pattern it follows."""

    place: str
    line: str
    pattern: str


def pattern_of(line: str) -> str:
    """The pattern of fragments that the first line of a docstring follows; empty where it stands alone."""
    for name, pattern in PATTERNS.items():
        if re.match(pattern, line):
            return name
    few = len(line.split()) < 3 and not FORMULA.search(line) and not re.match(r"\w+ `[\w.]+`", line)
    return "one or two words" if few else ""


def docstrings(root: Path = ROOT) -> Iterator[tuple[str, str]]:
    """Place (`file:line name`) and first line of every docstring of the four packages."""
    kinds = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    for package in PACKAGES:
        for path in sorted((root / package).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, kinds) and (text := ast.get_docstring(node)):
                    place = f"{path.relative_to(root)}:{getattr(node, 'lineno', 1)} {getattr(node, 'name', '(module)')}"
                    yield place, text.splitlines()[0]


def fragments(root: Path = ROOT) -> list[Fragment]:
    """Every first line that follows a pattern."""
    return [Fragment(place, line, pattern) for place, line in docstrings(root) if (pattern := pattern_of(line))]


if __name__ == "__main__":
    found = fragments()
    for one in found:
        print(f"{one.place}: {one.line}  [{one.pattern}]")
    sys.exit(bool(found))
