"""The lineage as text for a terminal."""

from collections.abc import Iterable, Mapping, Sequence

from gipo.commands.lineage.graph import walk
from gipo.commands.lineage.records import Ancestor, How, Key, Kind, LineageNode

MANY = 3  # logs that are listed one by one


def text(graph: Mapping[Key, LineageNode], unreadable: Iterable[tuple[str, str]] = ()) -> str:
    """The tree, one node a line; then what is missing, and which files could not be read and why."""
    lines = [_branch(lasts) + describe(node, below_first=bool(lasts)) for node, lasts in walk(graph)]
    missing = [(node.key.title, _mentioned(graph, node)) for node in lacking(graph)]
    lines += _list("not in this folder", missing)
    lines += _list("not readable", unreadable)
    return "\n".join(lines) if lines else "no checkpoint, artifact or log"


def describe(node: LineageNode, below_first: bool = True) -> str:
    """Kind, id, files, facts, where it is in place, and origins that its place below the first does not show."""
    files = node.where if node.files else f"({node.where})"
    shown = node.origins[:1] if below_first and node.origins[0].how is not How.LEARNED else ()
    origins = [origin for origin in node.origins if origin not in shown]
    facts = filter(None, [", ".join(node.facts)])
    return " · ".join([f"{node.key.title}  {files}", *facts, *node.placed, *_origins(origins)])


def lacking(graph: Mapping[Key, LineageNode]) -> list[LineageNode]:
    """What is mentioned, and held by no file of the folder; datasets are not looked for."""
    return [node for node in graph.values() if not node.files and node.key.kind is not Kind.DATASET]


def _origins(origins: Sequence[Ancestor]) -> list[str]:
    learned = [origin for origin in origins if origin.how is How.LEARNED]
    others = [f"{origin.how.value} {origin.key.short}" for origin in origins if origin.how is not How.LEARNED]
    if not learned:
        return others
    names = ", ".join(
        origin.key.short if origin.steps is None else f"{origin.key.short} ({origin.steps:,} steps)"
        for origin in learned[:MANY]
    )
    return [f"learned from {names}{f' and {len(learned) - MANY} more' if len(learned) > MANY else ''}", *others]


def _mentioned(graph: Mapping[Key, LineageNode], missing: LineageNode) -> str:
    """Say, in words, who names something that lies in no file of the folder."""
    by = [node for node in graph.values() if any(origin.key == missing.key for origin in node.origins)]
    names = [node.files[0] if node.files else node.key.title for node in by]
    if not names and missing.placed:
        return "named by a promotion"
    more = f" and {len(names) - MANY} more" if len(names) > MANY else ""
    return f"named by {', '.join(names[:MANY])}{more}" if names else "named by a log that carries its manifest"


def _list(head: str, rows: Iterable[tuple[str, str]]) -> list[str]:
    lines = [f"  {name}: {words}" for name, words in rows]
    return ["", f"{head}:", *lines] if lines else []


def _branch(lasts: tuple[bool, ...]) -> str:
    if not lasts:
        return ""
    return "".join("   " if last else "│  " for last in lasts[:-1]) + ("└─ " if lasts[-1] else "├─ ")
