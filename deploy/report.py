"""What the command line says of an artifact, as tables for a person at a terminal."""

import textwrap
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from deploy.bench import Latency
from deploy.runtime.check import Artifact
from deploy.runtime.manifest import Manifest
from gipo.common.files import PathLike
from gipo.common.tables import pairs, table

if TYPE_CHECKING:
    from deploy.export.artifact import Exported

INT8 = "int8 against the float policy"


def info(artifact: Artifact) -> str:
    """All that an artifact says of itself."""
    m = artifact.manifest
    parts = [
        section(pairs(_overview(artifact))),
        section(table(("name", "unit", "low", "high"), _actions(m)), "Actions"),
        section(table(("", "name", "unit", "mean", "scale"), _observations(m)), "Observations"),
        section(pairs(sorted(m.versions.items())), "Written with"),
    ]
    if m.quantisation is not None:
        parts.insert(1, distances(m.quantisation, INT8))
    return "\n\n".join(parts)


def exported(done: "Exported", path: PathLike, before: str | None = None) -> str:
    """What an export wrote to `path`, how far torch and ONNX Runtime are apart, and what int8 changed.

    Args:
        done: the export.
        path: of its file.
        before: id of the file that was there.
    """
    found = done.parity
    rows = [
        ("written", f"{path}, {done.size / 2**20:.2f} MiB"),
        ("policy id", done.policy_id),
        *[("in place of", f"{before}, which was there")] * (before not in (None, done.policy_id)),
        ("parity", f"{found.observations} observations through torch and ONNX Runtime"),
        ("|Δ action|", f"{found.action:.1e}"),
        ("|Δ log-prob|", f"{found.log_prob:.1e} nats"),
        ("rounding", f"{found.rounding:.1e}, of float32 against float64 in the distribution parameters"),
        ("left to rounding", f"{found.redrawn} draws made again, {found.ties} deterministic ties left out"),
    ]
    parts = [section(pairs(rows))]
    if done.manifest.quantisation is not None:
        parts.append(distances(done.manifest.quantisation, INT8))
    return "\n\n".join(parts)


def section(body: str, title: str = "") -> str:
    """`body` set in, below its title where it has one."""
    return (f"{title}\n" if title else "") + textwrap.indent(body, "  ")


def distances(found: Mapping[str, float], title: str) -> str:
    """The distances of `deploy.runtime.compare.shift`, one quantity a line, below a title."""
    names = {
        "kl": "KL, nats",
        "log_prob_difference": "|Δ log-prob|, nats",
        "action_difference": "|Δ action| sampled",
        "deterministic_action_difference": "|Δ action| deterministic",
    }
    rows = [(text, f"{found[f'{name}_mean']:.3g}", f"{found[f'{name}_max']:.3g}") for name, text in names.items()]
    return section(table(("per action dimension", "mean", "max"), rows), title)


def latencies(measured: Iterable[tuple[str, Latency]]) -> str:
    """Latency at batch 1, one engine a line."""
    rows = [
        (name, *(f"{value:,.1f}" for value in (found.p50, found.p99, found.p999, found.worst)))
        for name, found in measured
    ]
    return section(table(("one decision, µs", "p50", "p99", "p99.9", "max"), rows))


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
