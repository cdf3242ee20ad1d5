"""One HTML page about logs: no script, nothing loaded from anywhere, so it opens offline and can be mailed."""

import math
from collections import Counter
from collections.abc import Hashable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from deploy.runtime.validation import is_finite
from gipo.common.files import write_text
from gipo.common.intervals import wilson_interval
from robots.divergence import shadows
from robots.log import TIMES, Episode, Log, read_logs
from robots.review.info import EPISODE, episode_row, policies, timing_rows
from robots.review.svg import Rule, Series, escape, plot

STYLE = """
:root { color-scheme: light dark; --ink: #1c1c1e; --soft: #6b6b70; --line: #d9d9de; --page: #fff;
  --c0: #2563eb; --c1: #e07b00; --c2: #15803d; --c3: #c2261d; --c4: #7c3aed; --c5: #9a9aa2; }
@media (prefers-color-scheme: dark) { :root { --ink: #ececf0; --soft: #a0a0a8; --line: #3a3a40; --page: #17171a;
  --c0: #6ea0ff; --c1: #ffb04d; --c2: #5fd38a; --c3: #ff7a70; --c4: #b79bff; --c5: #77777f; } }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--page); max-width: 60rem;
  margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.15rem; margin-top: 2.2rem; overflow-wrap: anywhere; }
.cards { display: flex; flex-wrap: wrap; gap: .6rem; } .card { border: 1px solid var(--line); border-radius: 8px;
  padding: .5rem .8rem; min-width: 8rem; } .card b { display: block; font-size: 1.25rem; }
.card span { color: var(--soft); }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; margin: .8rem 0; }
th, td { text-align: right; padding: .2rem .5rem; border-bottom: 1px solid var(--line); overflow-wrap: anywhere; }
th { color: var(--soft); font-weight: 500; } th:last-child, td:last-child { text-align: left; }
figure { margin: 1rem 0; } figcaption { font-weight: 600; } svg { width: 100%; height: auto; }
.key { font-weight: 400; font-size: .85rem; margin-left: .8rem; } .key::before { content: "■ "; }
.grid { stroke: var(--line); stroke-width: .6; } .cut { stroke: var(--line); stroke-width: .8; stroke-dasharray: 2 3; }
.rule { stroke: var(--c3); stroke-width: 1; stroke-dasharray: 6 4; } text { font-size: 10px; fill: var(--soft); }
text.rule { stroke: none; fill: var(--c3); text-anchor: end; } text.tick { text-anchor: middle; }
text.y { text-anchor: end; }
text.label { text-anchor: middle; font-size: 11px; } .line { fill: none; stroke-width: 1.1; }
.c0 { --c: var(--c0); } .c1 { --c: var(--c1); } .c2 { --c: var(--c2); } .c3 { --c: var(--c3); } .c4 { --c: var(--c4); }
.c5 { --c: var(--c5); } .key::before { color: var(--c); } .line { stroke: var(--c); } .dots, .bars { fill: var(--c); }
.bad { color: var(--c3); } .good { color: var(--c2); }
"""


def write_report(paths: Iterable[str | Path], out: str | Path) -> None:
    """Write the page about logs to `out`, whole or not at all.

    Raises:
        UserError: when a log is damaged or named twice, or the page cannot be written.
    """
    write_text(render([(str(path), log) for path, log in read_logs(paths)]), out)


def render(logs: Sequence[tuple[str, Log]]) -> str:
    """The HTML page about logs, each given with its path."""
    episodes = [episode for _, log in logs for episode in log.begun]
    once = _once(episodes)
    groups = _by_policy(once)
    body = [
        f"<h1>{len(logs)} robot session{'s' if len(logs) != 1 else ''}</h1>",
        _cards(logs, episodes, once, len(groups)),
    ]
    if len(groups) > 1:
        body.append(_table(("policy", "success", "95 %", "commanded by"), groups))
    names = [Path(path).name for path, _ in logs]
    for name, (path, log) in zip(names, logs, strict=True):
        body.append(_section(name if names.count(name) == 1 else path, log))
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><meta name="viewport" '
        'content="width=device-width, initial-scale=1"><link rel="icon" href="data:,">'
        f"<title>Robot sessions</title><style>{STYLE}</style></head><body>{''.join(body)}</body></html>"
    )


def _once(episodes: Iterable[Episode]) -> list[Episode]:
    """The episodes but those that a simulated robot drove again with the same noise: they tell nothing new.

    Of copies the first whose outcome is known is kept.
    """
    found: dict[Hashable, Episode] = {}
    for episode in episodes:
        noise = episode.start.get("noise") if len(episode) else None
        went = (episode["observation"].tobytes(), episode["action"].tobytes()) if noise else id(episode)
        key = (str(noise), episode.policy_id, went)
        if key not in found or (found[key].success is None and episode.success is not None):
            found[key] = episode
    return list(found.values())


def _by_policy(episodes: Iterable[Episode]) -> list[tuple[str, ...]]:
    """Success of every policy, of its own and where a person commanded steps: what is mixed of them has no rate."""
    found: dict[tuple[str, str], list[bool]] = {}
    for episode in episodes:
        if episode.success is not None and not episode.discarded:
            who = "a person too" if episode.overruled.any() else "the policy alone"
            found.setdefault(((episode.policy_id or "?")[:12], who), []).append(episode.success)
    return [(policy, *_rate(known), who) for (policy, who), known in sorted(found.items())]


def _rate(known: Sequence[bool]) -> tuple[str, str]:
    _, low, high = wilson_interval(sum(known), len(known))
    return f"{sum(known)}/{len(known)}", f"{low:.2f}–{high:.2f}"


def _cards(logs: Sequence[tuple[str, Log]], episodes: list[Episode], once: list[Episode], groups: int) -> str:
    known = [episode.success for episode in once if episode.success is not None and not episode.discarded]
    counts = {"discarded": sum(each.discarded for each in episodes), "driven again": len(episodes) - len(once)}
    left = [f"{count} {reason}" for reason, count in counts.items() if count]
    # A driver that fails to stop is told to again, and each time is an event.
    stops = len(
        {(at, event["episode"]) for at, (_, log) in enumerate(logs) for event in log.events if event["kind"] == "stop"}
    )
    rate, interval = _rate(known) if known else ("–", "")
    of_what = ("no outcome known", f"success, 95 % {interval}", "success, all together")[min(groups, 2)]
    paced = [log for _, log in logs if _speed(log) == 1]  # at another one the time of a tick is not the robot's
    cards = [
        (rate, of_what),
        (f"{len(episodes)}", ", ".join(["episodes", *left])),
        (f"{sum(map(len, episodes)):,}", "steps"),
        *([(f"{sum(map(_over_budget, paced)):,}", "ticks over budget")] if paced else []),
        (f"{sum(log.dropped for _, log in logs):,}", "steps not logged"),
        (f"{stops}", "stops"),
    ]
    return (
        '<div class="cards">'
        + "".join(f'<div class="card"><b>{a}</b><span>{b}</span></div>' for a, b in cards)
        + "</div>"
    )


def _section(title: str, log: Log) -> str:
    parts = [f"<h2>{escape(title)}</h2>", f"<p>{escape(_headline(log))}</p>"]
    if log.integrity.status != "sealed":
        parts.append(f'<p class="bad">{escape(f"{log.integrity.status}: {log.integrity.reason}")}</p>')
    for name, found in shadows(log.episodes).items():
        parts.append(f"<p>{escape(f'shadow {name[:12]}…: {found}')}</p>")
    if log.unused_labels:
        parts.append(f'<p class="bad">labels: {escape(log.unused_labels)}</p>')
    if log.begun:
        parts.append(_table(EPISODE, map(episode_row, log.begun)))
    if log.episodes:
        parts += [
            _returns(log),
            *_commands(log),
            *_changes(log),
            _pace(log),
            _table(
                ("p50 ms", "p99 ms", "max ms", "section"),
                ((*times, name) for name, *times in timing_rows(log.episodes)),
            ),
        ]
    parts.append(_events(log))
    return "".join(parts)


def _headline(log: Log) -> str:
    robot = log.header.robot
    task = log.header.settings.get("task") or "no task named"
    return (
        f"{log.header.created} · robot {robot.get('name', '?')} at {robot.get('control_rate_hz', '?')} Hz · {task} · "
        f"policy {policies(log) or 'unknown'} · {log.integrity.status}, {log.integrity.size:,} bytes"
    )


def _returns(log: Log) -> str:
    groups = [(True, "success", "c2"), (False, "failure", "c3"), (None, "unknown", "c5")]
    series = []
    for value, name, style in groups:
        chosen = [episode for episode in log.episodes if episode.success is value]
        if chosen:
            x = np.array([episode.number for episode in chosen], float)
            y = np.array([episode.total for episode in chosen])
            series.append(Series(name, x, y, "bars", style))
    numbers = np.array([episode.number for episode in log.episodes], float)
    room = Series("", np.array([numbers.min() - 0.6, numbers.max() + 0.6]), np.zeros(2), "none")
    return plot("Return of each episode", [*series, room], "episode", "return")


def _commands(log: Log) -> list[str]:
    """Sampled and sent action of every dimension against its bounds, over all steps."""
    robot = log.header.robot
    asked, sent = _joined(log, "action"), _joined(log, "sent_action")
    x, cuts = _axis(log)
    found = []
    for index in range(asked.shape[1]):
        name, unit = (_of(robot, key, index, "?") for key in ("action_names", "action_units"))
        rules = [Rule(_of(robot, f"action_{end}", index, math.nan), end) for end in ("low", "high")]
        series = [Series("asked", x, asked[:, index], "dots", "c5"), Series("sent", x, sent[:, index], "line", "c0")]
        found.append(plot(f"Command {name}", series, "step of the session", str(unit), rules, cuts))
    return found


def _changes(log: Log) -> list[str]:
    """Rate of the sent action, as a share of its limit, where there is one."""
    robot = log.header.robot
    limits = np.array([np.nan if v is None else float(v) for v in robot.get("action_rate", [])], float)
    if not np.isfinite(limits).any():
        return []
    hertz = float(log.header.of_robot("control_rate_hz"))
    x, cuts = _axis(log)
    share = []
    for episode in log.episodes:
        # Where rows were dropped, the change is of as many ticks.
        ticks = np.diff(episode["step"], prepend=episode["step"][0] - 1)[:, None]
        steps = np.diff(episode["sent_action"], axis=0, prepend=episode["sent_action"][:1]) / ticks
        share.append(np.nanmax(np.abs(steps) * hertz / limits, axis=1))
    series, rules = [Series("", x, np.concatenate(share), "line", "c4")], [Rule(1.0, "limit")]
    title = "Fastest command, share of its rate limit"
    return [plot(title, series, "step of the session", "share", rules, cuts)]


def _pace(log: Log) -> str:
    x, cuts = _axis(log)
    work = _joined(log, "timing_us")[:, TIMES.index("work")] / 1000
    late = _joined(log, "timing_us")[:, TIMES.index("late")] / 1000
    series = [Series("work of a tick", x, work, "line", "c0"), Series("late by", x, late, "line", "c1")]
    return plot("Pace", series, "step of the session", "ms", [Rule(_period_ms(log), "period")], cuts)


def _events(log: Log) -> str:
    reasons = Counter(reason for episode in log.episodes for changed in episode.gate.values() for reason in changed)
    parts = ["<h3>Safety</h3>"]
    if reasons:
        changes = [(f"{count:,}", str(name)) for name, count in sorted(reasons.items())]
        parts.append(_table(("commands changed", "by"), changes))
    kinds = ("stop", "reset", "takeover", "handback", "operator", "said", "dropped")
    rows = [
        (str(event["episode"]), str(event["step"]), event["kind"], f"{event['reason']} {event['data'] or ''}")
        for event in log.events
        if event["kind"] in kinds
    ]
    parts.append(
        _table(("episode", "step", "event", "reason"), rows) if rows else '<p class="good">No stop, no takeover.</p>'
    )
    return "".join(parts)


def _over_budget(log: Log) -> int:
    return sum(int((e["timing_us"][:, TIMES.index("work")] > 1000 * _period_ms(log)).sum()) for e in log.episodes)


def _period_ms(log: Log) -> float:
    return 1000 / float(log.header.of_robot("control_rate_hz")) / _speed(log)


def _speed(log: Log) -> float:
    """How many times faster than real time a session ran."""
    speed: Any = log.header.settings.get("speed")
    return float(speed) if is_finite(speed) and speed > 0 else 1.0


def _joined(log: Log, name: str) -> np.ndarray:
    return np.concatenate([episode[name] for episode in log.episodes]).astype(float)


def _axis(log: Log) -> tuple[np.ndarray, list[float]]:
    """Step of the session for every row, and where episodes begin."""
    lengths = [len(episode) for episode in log.episodes]
    return np.arange(sum(lengths), dtype=float), np.cumsum([0, *lengths])[1:-1].astype(float).tolist()


def _of(robot: dict[str, Any], key: str, index: int, otherwise: Any) -> Any:
    values = robot.get(key)
    return values[index] if isinstance(values, list) and index < len(values) else otherwise


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = ["".join(f"<td>{escape(cell)}</td>" for cell in row) for row in rows]
    top = "".join(f"<th>{escape(cell)}</th>" for cell in head)
    return f"<table><thead><tr>{top}</tr></thead><tbody>{''.join(f'<tr>{line}</tr>' for line in lines)}</tbody></table>"
