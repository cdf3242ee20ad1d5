"""What a log holds, for a terminal."""

from collections import Counter
from pathlib import Path

import numpy as np

from gipo.common.tables import outcome, pairs, table
from gipo.common.transition import PERSON
from robots.divergence import shadows
from robots.log import SECTIONS, TIMES, Episode, Log

EPISODE = (
    "episode", "policy", "version", "steps", "a person's", "return", "outcome", "changed by the gate", "ended by"
)  # fmt: skip


def info(path: str | Path, log: Log) -> str:
    """A log in words and tables: header, integrity, episodes, events and timing."""
    found = log.integrity
    state = found.status if found.status == "sealed" else f"{found.status} at byte {found.valid:,}: {found.reason}"
    overview = [
        ("log", path),
        ("session", log.header.session),
        ("created", log.header.created),
        ("robot", f"{log.header.robot.get('name', '?')}, {log.header.robot.get('control_rate_hz', 0):g} Hz"),
        ("settings", ", ".join(f"{key}={value}" for key, value in sorted(log.header.settings.items()))),
        ("policies", policies(log) or "none"),
        ("file", f"{found.size:,} bytes, {found.messages:,} messages, {state}"),
        ("steps", f"{sum(map(len, log.episodes)):,}, {log.dropped:,} dropped"),
        *(("shadow", f"{name[:12]}…: {found}") for name, found in shadows(log.episodes).items()),
    ]
    if log.unused_labels:
        overview.append(("labels", log.unused_labels))
    parts = [pairs(overview)]
    if log.begun:
        parts.append(table(EPISODE, map(episode_row, log.begun)))
    if log.episodes:
        parts.append(table(("milliseconds", "p50", "p99", "max"), timing_rows(log.episodes)))
    kinds = Counter(event["kind"] for event in log.events)
    parts.append("events: " + (", ".join(f"{kind} {count}" for kind, count in sorted(kinds.items())) or "none"))
    return "\n\n".join(parts)


def policies(log: Log) -> str:
    """The beginnings of the ids of the policies that a log names, those that acted, or were to, first."""
    acted = {*(episode.policy_id for episode in log.begun), *(log.header.turns or ())}
    names = sorted(log.header.manifests, key=lambda name: name not in acted)
    return ", ".join(f"{'' if name in acted or not acted else 'shadow '}{name[:12]}…" for name in names)


def episode_row(episode: Episode) -> tuple[str, ...]:
    """An episode in the columns of EPISODE, for a terminal or a page."""
    end = episode.event("episode_end")
    judged = episode.label is not None and episode.label.success is not None
    return (
        str(episode.number),
        (episode.policy_id or "?")[:12],
        "/".join(map(str, sorted(set(episode["policy_version"].tolist())))),
        f"{len(episode):,}",
        f"{int((episode['source'] == PERSON).sum()):,}",
        f"{episode.total:.2f}",
        outcome(episode.success) + " (label)" * judged + ", discarded" * episode.discarded,
        f"{len(episode.gate):,}",
        "the log ends" if end is None else str(end["reason"]),
    )


def timing_rows(episodes: list[Episode]) -> list[tuple[str, ...]]:
    """Each of TIMES with its median, 99th percentile and largest value, milliseconds."""
    times = np.concatenate([episode["timing_us"] for episode in episodes])
    quantiles = np.quantile(times, (0.5, 0.99, 1.0), axis=0).T / 1000
    names = [name if name in SECTIONS else f"{name} (whole tick)" for name in TIMES]
    return [(name, *(f"{value:.3f}" for value in row)) for name, row in zip(names, quantiles, strict=True)]
