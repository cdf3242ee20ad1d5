"""Tables for a person at a terminal."""

from collections.abc import Iterable, Mapping, Sequence

from deploy.bench import Latency
from deploy.runtime.check import Artifact
from deploy.runtime.manifest import Manifest


def info(artifact: Artifact) -> str:
    """All that an artifact says of itself."""
    m = artifact.manifest
    parts = [
        pairs(_overview(artifact)),
        "Actions\n" + table(("name", "unit", "low", "high"), _actions(m)),
        "Observations\n" + table(("", "name", "unit", "mean", "scale"), _observations(m)),
        "Written with\n" + pairs(sorted(m.versions.items())),
    ]
    if m.quantisation is not None:
        parts.insert(1, "int8 against the float policy\n" + distances(m.quantisation))
    return "\n\n".join(parts)


def distances(found: Mapping[str, float]) -> str:
    """The distances of `deploy.runtime.compare.shift`, one quantity a line."""
    names = {
        "kl": "KL, nats",
        "log_prob_difference": "|Δ log-prob|, nats",
        "action_difference": "|Δ action| sampled",
        "deterministic_action_difference": "|Δ action| deterministic",
    }
    rows = [(text, f"{found[f'{name}_mean']:.3g}", f"{found[f'{name}_max']:.3g}") for name, text in names.items()]
    return table(("per action dimension", "mean", "max"), rows)


def latencies(measured: Iterable[tuple[str, Latency]]) -> str:
    """Latency at batch 1, one engine a line."""
    rows = [
        (name, *(f"{value:,.1f}" for value in (found.p50, found.p99, found.p999, found.worst)))
        for name, found in measured
    ]
    return table(("one decision, µs", "p50", "p99", "p99.9", "max"), rows)


def pairs(rows: Iterable[tuple[str, str]]) -> str:
    """Name and value, aligned."""
    rows = list(rows)
    width = max(len(name) for name, _ in rows)
    return "\n".join(f"  {name:<{width}}  {value}" for name, value in rows)


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Columns as wide as their widest cell; numbers to the right."""
    cells = [tuple(head), *(tuple(row) for row in rows)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(head))]
    right = [all(_is_number(row[i]) for row in cells[1:]) for i in range(len(head))]
    lines = [
        "  ".join(f"{cell:>{w}}" if r else f"{cell:<{w}}" for cell, w, r in zip(row, widths, right, strict=True))
        for row in cells
    ]
    return "\n".join(f"  {line.rstrip()}" for line in lines)


def _overview(artifact: Artifact) -> list[tuple[str, str]]:
    m = artifact.manifest
    normaliser = "inside the graph" if m.normaliser is not None else "none"
    return [
        ("policy id", artifact.policy_id),
        ("task", m.task or "not recorded"),
        ("family", f"{m.family}, {m.parameters_per_dimension} parameters an action dimension"),
        ("precision", f"{m.precision}, {len(artifact.data) / 2**20:.2f} MiB"),
        ("control rate", f"{m.control_rate_hz:g} Hz, {1000 / m.control_rate_hz:g} ms a step"),
        ("policy version", str(m.policy_version)),
        ("checkpoint", m.checkpoint or "not recorded"),
        ("parent", m.parent or "none"),
        ("frames", "not recorded" if m.frames is None else f"{m.frames:,}"),
        ("config hash", m.config_hash),
        ("normaliser", normaliser),
        ("golden vectors", str(len(m.golden.observation))),
    ]


def _actions(m: Manifest) -> list[tuple[str, ...]]:
    rows = zip(m.action_names, m.action_units, m.action_low, m.action_high, strict=True)
    return [(name, unit, f"{low:g}", f"{high:g}") for name, unit, low, high in rows]


def _observations(m: Manifest) -> list[tuple[str, ...]]:
    means = m.normaliser.mean if m.normaliser else (0.0,) * m.observation_size
    scales = m.normaliser.scale if m.normaliser else (1.0,) * m.observation_size
    rows = zip(m.observation_names, m.observation_units, means, scales, strict=True)
    return [(str(i), name, unit, f"{mean:.4g}", f"{scale:.4g}") for i, (name, unit, mean, scale) in enumerate(rows)]


def _is_number(cell: str) -> bool:
    try:
        float(cell.replace(",", ""))
    except ValueError:
        return False
    return True
