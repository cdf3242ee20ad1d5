"""Records put together: one node an id, however many files hold or mention it, and the tree they form."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping

from gipo.commands.lineage.records import Ancestor, How, Key, Kind, LineageNode

_ORDER = {Kind.DATASET: 0, Kind.LOG: 0, Kind.ARTIFACT: 1, Kind.CHECKPOINT: 2}  # of what came from the same origin


Graph = dict[Key, LineageNode]


def build(records: Iterable[LineageNode]) -> Graph:
    """One node for each key that is held or mentioned, in the order of its first file, those without a file last."""
    known: dict[Key, list[LineageNode]] = defaultdict(list)
    for record in records:
        known[record.key].append(record)
        for origin in record.origins:
            known[origin.key]  # mentioned, perhaps by no record of its own
    nodes = [_merge(key, found) for key, found in known.items()]
    return {node.key: node for node in sorted(nodes, key=lambda node: (not node.files, node.files, node.key.id))}


def _merge(key: Key, found: list[LineageNode]) -> LineageNode:
    """What the files that hold it say, before what others say of it."""
    found = sorted(found, key=lambda record: not record.files)
    origins: dict[tuple[Key, How], Ancestor] = {}
    for origin in (origin for record in found for origin in record.origins):
        origins.setdefault((origin.key, origin.how), origin)
    files = tuple(file for record in found for file in record.files)
    facts = next((record.facts for record in found if record.facts), ())
    placed = tuple(each for record in found for each in record.placed)
    return LineageNode(key, files, facts, tuple(origins.values()), placed)


def children(graph: Mapping[Key, LineageNode]) -> dict[Key, list[LineageNode]]:
    """What hangs below each node: logs first, then artifacts, then the checkpoints that learned from the logs."""
    below: dict[Key, list[LineageNode]] = {key: [] for key in graph}
    for node in graph.values():
        if node.origins:
            below[node.origins[0].key].append(node)
    for nodes in below.values():
        nodes.sort(key=lambda node: _ORDER[node.key.kind])
    return below


def walk(graph: Mapping[Key, LineageNode]) -> Iterator[tuple[LineageNode, tuple[bool, ...]]]:
    """Every node once, each after what it hangs below, with whether each of its ancestors and itself is a last child.

    What names itself as its own ancestor, which only a forged file can, begins a tree of its own.
    """
    below, seen = children(graph), set()
    roots = [node for node in graph.values() if not node.origins]
    for root in [*roots, *graph.values()]:
        waiting: list[tuple[LineageNode, tuple[bool, ...]]] = [(root, ())]
        while waiting:
            node, lasts = waiting.pop()
            if node.key in seen:
                continue
            seen.add(node.key)
            yield node, lasts
            found = [child for child in below[node.key] if child.key not in seen]
            waiting += [(child, (*lasts, child is found[-1])) for child in reversed(found)]
