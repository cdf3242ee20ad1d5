"""The HTML report: opened by a real browser without a network, its plots there, and nothing on the console."""

import html
import os
import re
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from robots.cli import main
from robots.log import LogStream, LogWriter, Session, read_log
from robots.review.info import policies
from robots.review.report import render, write_report
from robots.review.svg import POINTS, Rule, Series, plot, thin, ticks
from tests.robots.builders import EPISODE, make_spec, step_row

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")


@pytest.fixture
def browse(tmp_path: Path) -> Callable[[Path], tuple[str, str]]:
    """Opens a page in chromium; the document as the browser understood it, and what it said on its console."""
    if CHROMIUM is None:
        pytest.skip("no chromium on this machine; Debian's package is named chromium")

    def run(page: Path, *more: str) -> tuple[str, str]:
        command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--no-first-run"]
        # Every name resolves to nothing: whatever the page wants from a network, it does not get.
        command += ["--host-resolver-rules=MAP * ~NOTFOUND", f"--user-data-dir={tmp_path / 'profile'}"]
        command += ["--enable-logging=stderr", "--v=0", *more, page.as_uri()]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120)
        return done.stdout, "\n".join(line for line in done.stderr.splitlines() if "CONSOLE" in line)

    return run


def test_a_real_browser_shows_it(session: Path, tmp_path: Path, browse: Callable[..., tuple[str, str]]) -> None:
    write_report([session], tmp_path / "report.html")
    document, console = browse(tmp_path / "report.html", "--dump-dom")
    assert console == ""
    assert document.count("<svg") == 6  # returns, four commands, pace
    assert document.count("<polyline") == 6
    for text in ("Return of each episode", "Command hand_dx", "Pace", "No stop, no takeover", session.name):
        assert text in document
    page = tmp_path / "probe.html"
    body = (tmp_path / "report.html").read_text()
    # Sizes as laid out: a plot that is there but invisible has none.
    script = (
        "<script>const sizes=[...document.querySelectorAll('polyline,.bars')].map(e=>e.getBoundingClientRect());"
        "document.title='sizes '+sizes.filter(r=>r.width>20&&r.height>1).length+' of '+sizes.length;</script></body>"
    )
    page.write_text(body.replace("</body>", script))
    document, console = browse(page, "--dump-dom")
    found = re.search(r"<title>sizes (\d+) of (\d+)</title>", document)
    assert found is not None
    assert found[1] == found[2] != "0"
    assert console == ""


def test_a_dropped_step_is_no_broken_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec, shown = make_spec(action_rate=(4.0,) * 3), []
    writer = LogWriter(tmp_path / "a.mcap", Session(spec.to_json()))
    for step in (0, 1, 3, 4):
        row = step_row(step, 5, 3)
        row.sent_action = np.full(3, step * 4 / 80)  # at its limit
        writer.step(row)
    writer.close()
    monkeypatch.setattr("robots.review.report.plot", lambda title, series, *_: shown.append((title, series)) or "")
    render([("a", read_log(tmp_path / "a.mcap"))])
    (series,) = [found for title, found in shown if "share of its rate limit" in title]
    np.testing.assert_allclose(series[0].y, [0, 1, 1, 1])


def test_the_console_is_really_watched(tmp_path: Path, browse: Callable[..., tuple[str, str]]) -> None:
    page = tmp_path / "bad.html"
    page.write_text("<!doctype html><script>console.error('seen')</script>")
    assert "seen" in browse(page, "--dump-dom")[1]


def test_nothing_is_loaded_from_anywhere(session: Path, tmp_path: Path) -> None:
    write_report([session], tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text()
    assert not re.search(r"https?:|<script|<link(?! rel=\"icon\" href=\"data:,\")|url\(|@import|src=", page)
    assert len(page) < 2_000_000


def test_names_from_a_log_cannot_become_markup(tmp_path: Path) -> None:
    spec = make_spec(
        action_names=("<script>alert(1)</script>", 'a"b', "c&d"), action_low=(-2.0,) * 3, action_high=(2.0,) * 3
    )
    writer = LogWriter(tmp_path / "<em>.mcap", Session(spec.to_json(), settings={"task": "<img src=x>"}))
    writer.event("stop", "<svg onload=alert(1)>", episode=0, step=3)
    for index in range(5):
        row = step_row(index, 5, 3)
        row.gate = ("<i>",)
        writer.step(row)
    writer.close()
    from robots.log import read_log

    page = render([(str(writer.path), read_log(writer.path))])
    for markup in ("<script>alert", "<img", "<svg onload", "<i>", "<em>"):
        assert markup not in page
        assert html.escape(markup) in page


def test_limits_and_stops_are_shown(tmp_path: Path) -> None:
    writer = LogWriter(tmp_path / "a.mcap", Session(make_spec().to_json()))
    for index in range(EPISODE):
        writer.step(step_row(index, 5, 3))
    writer.event("stop", "the cable is out", episode=0, step=EPISODE, data={"raw": ["nan"]})
    writer.close()
    write_report([writer.path], tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text()
    assert "the cable is out" in page
    assert "share of its rate limit" in page
    assert "the log ends" in page


def test_a_short_help_is_help_and_a_stop_is_one_however_often_it_is_told(tmp_path: Path) -> None:
    writer = LogWriter(tmp_path / "a.mcap", Session(make_spec().to_json()))
    for index in range(3):
        writer.event("episode_start", episode=index, data={"policy_id": "a" * 64})
        row = step_row(index * EPISODE, 5, 3)
        row.source, row.valid = ("policy", True) if index == 0 else ("hold", False)
        row.proposed_action = row.action + 1 if index == 2 else None
        assert row.episode == index
        writer.step(row)
        writer.event("outcome", "reported by the robot", index, 1, {"success": True})
    for _ in range(4):
        writer.event("stop", "the driver fails to stop", episode=2, step=1)
    writer.close()
    page = render([("a.mcap", read_log(writer.path))])
    rows = [re.findall("<td>(.*?)</td>", row) for row in re.findall("<tr>(.*?)</tr>", page)]
    assert [(row[1], row[3]) for row in rows if row and row[0] == "a" * 12 and len(row) == 4] == [
        ("1/1", "a person too"),
        ("2/2", "the policy alone"),
    ]
    assert "<b>1</b><span>stops</span>" in page


def test_logs_of_one_name_are_told_apart_by_their_folders(tmp_path: Path) -> None:
    for name in ("monday/a.mcap", "friday/a.mcap", "b.mcap"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        LogWriter(tmp_path / name, Session(make_spec().to_json())).close()
    write_report(sorted(tmp_path.rglob("*.mcap")), tmp_path / "report.html")
    titles = re.findall("<h2>(.*?)</h2>", (tmp_path / "report.html").read_text())
    assert titles == ["b.mcap", str(tmp_path / "friday/a.mcap"), str(tmp_path / "monday/a.mcap")]


def test_a_name_that_is_no_text_is_written_by_its_bytes(tmp_path: Path) -> None:
    path = tmp_path / os.fsdecode(b"odd\xff.mcap")
    LogWriter(path, Session(make_spec().to_json())).close()
    write_report([path], tmp_path / "report.html")
    assert "<h2>odd\\udcff.mcap</h2>" in (tmp_path / "report.html").read_text()


def test_a_page_replaces_no_log(session: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = session.read_bytes()
    assert main(["report", "--out", str(session), str(session)]) == 2  # as of `--out *.mcap`
    assert "a .mcap file is not replaced by a .html; name another" in capsys.readouterr().err
    assert session.read_bytes() == before


@pytest.fixture
def judged(tmp_path: Path) -> Path:
    """Two episodes of policy A, of which a person helped in the second, and two of B that were ended at once."""
    writer = LogWriter(tmp_path / "judged.mcap", Session(make_spec().to_json(), settings={"speed": 20.0}))
    for episode, (policy, steps, success) in enumerate(
        [("a", 3, False), ("a", 3, True), ("b", 0, False), ("b", 0, True)]
    ):
        writer.event("episode_start", "", episode, data={"policy_id": policy * 64})
        for index in range(steps):
            row = step_row(index + 1, 5, 3)
            row.episode, row.source = episode, "person" if success else "policy"
            writer.step(row)
        writer.event("said", "", episode, steps, {"success": success})
        writer.event("episode_end", "a person", episode, steps)
    writer.close()
    return writer.path


def test_what_is_mixed_of_policies_and_persons_has_no_rate(judged: Path) -> None:
    page = render([("judged.mcap", read_log(judged))])
    assert "<b>2/4</b><span>success, all together</span>" in page
    rows = [re.findall("<td>(.*?)</td>", row) for row in re.findall("<tr>(.*?)</tr>", page)]  # the first is a head
    assert rows[1:4] == [
        ["aaaaaaaaaaaa", "1/1", "0.21–1.00", "a person too"],
        ["aaaaaaaaaaaa", "0/1", "0.00–0.79", "the policy alone"],
        ["bbbbbbbbbbbb", "1/2", "0.09–0.91", "the policy alone"],
    ]
    assert "ticks over budget" not in page, "at twenty times the speed, the time of a tick is not the robot's"


def test_an_episode_that_was_driven_again_counts_once(tmp_path: Path) -> None:
    """With the same noise and the same steps; other steps, other noise, none, or no step are episodes of their own."""
    logs = []
    for name, begun in {
        "a": ((3, 0, True), (3, 1, False), (0, 2, True)),
        "b": ((3, 0, True), (3, 3, True), (0, 2, True)),
    }.items():
        writer = LogWriter(tmp_path / f"{name}.mcap", Session(make_spec().to_json()))
        for episode, (steps, noise, success) in enumerate(begun):
            writer.event("episode_start", "", episode, data={"policy_id": "a" * 64, "noise": f"rng({noise})"})
            for index in range(steps):
                row = step_row(index + 1, 5, 3)
                row.episode = episode
                writer.step(row)
            writer.event("said", "", episode, steps, {"success": success})
            writer.event("episode_end", "", episode, steps)
        writer.close()
        logs.append((name, read_log(writer.path)))
    page = render(logs)
    assert "<b>4/5</b><span>success, 95 % 0.38–0.96</span>" in page
    assert "<b>6</b><span>episodes, 1 driven again</span>" in page
    assert "<b>2/3</b>" in render(logs[:1])
    assert "driven again" not in render(logs[:1])


def test_of_copies_the_first_whose_outcome_is_known_counts(tmp_path: Path) -> None:
    """Where a person labelled the second alone, what was said is not lost."""
    logs = []
    for name, outcome in (("a", None), ("b", True), ("c", False)):
        writer = LogWriter(tmp_path / f"{name}.mcap", Session(make_spec().to_json()))
        writer.event("episode_start", "", 0, data={"policy_id": "a" * 64, "noise": "rng(0)"})
        writer.step(step_row(1, 5, 3))
        if outcome is not None:
            writer.event("said", "", 0, 1, {"success": outcome})
        writer.event("episode_end", "", 0, 1)
        writer.close()
        logs.append((name, read_log(writer.path)))
    assert "no outcome known" in render(logs[:1])
    assert "<b>1/1</b>" in render(logs)
    assert "<b>0/1</b>" in render([logs[0], logs[2]])


def test_an_episode_without_a_step_counts_and_is_labelled(judged: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log = read_log(judged)
    assert [(each.number, len(each), each.success) for each in log.begun] == [
        (0, 3, False), (1, 3, True), (2, 0, False), (3, 0, True),
    ]  # fmt: skip
    assert [each.number for each in log.episodes] == [0, 1], "of which something can be learned"
    assert main(["label", str(judged), "--episode", "3", "--failure"]) == 0
    assert main(["label", str(judged), "--episode", "3", "--reward", "1"]) == 2
    assert "no step of episode 3 is logged that a reward could be added to" in capsys.readouterr().err
    assert main(["label", str(judged), "--episode", "4", "--failure"]) == 2
    assert "has no episode 4; it has 4, 0 to 3" in capsys.readouterr().err
    assert main(["info", str(judged)]) == 0
    assert re.search(r"3 +b{12} +0 +0 +0\.00 +failure \(label\)", capsys.readouterr().out)
    stream = LogStream(judged)
    assert [each.number for each in stream] == [0, 1]
    assert not stream.unused_labels


def test_a_speed_that_is_no_number_of_a_clock_is_passed_over(tmp_path: Path) -> None:
    for name, speed in (("a", 10**400), ("b", 1)):
        writer = LogWriter(tmp_path / f"{name}.mcap", Session(make_spec().to_json(), settings={"speed": speed}))
        writer.step(step_row(0, 5, 3))
        writer.close()
        write_report([writer.path], tmp_path / f"{name}.html")
    assert (tmp_path / "a.html").read_text().count("<svg") == (tmp_path / "b.html").read_text().count("<svg") > 0


def test_a_session_without_steps(tmp_path: Path) -> None:
    writer = LogWriter(tmp_path / "a.mcap", Session(make_spec().to_json()))
    writer.close()
    write_report([writer.path], tmp_path / "report.html")
    assert "<svg" not in (tmp_path / "report.html").read_text()


def test_a_long_session_stays_small_and_quick(tmp_path: Path) -> None:
    writer = LogWriter(tmp_path / "a.mcap", Session(make_spec().to_json()), capacity=100_000)
    rows = [step_row(index, 5, 3) for index in range(1000)]
    for number in range(20):
        for index, row in enumerate(rows):
            row.episode, row.step = number, index
            writer.step(row)
        while writer.statistics.written < 1000 * (number + 1):
            time.sleep(0.01)
    writer.close()
    write_report([writer.path], tmp_path / "report.html")
    assert (tmp_path / "report.html").stat().st_size < 1_500_000


def test_thinning_keeps_every_spike() -> None:
    x, y = np.arange(100_000.0), np.zeros(100_000)
    y[[777, 50_001]] = 5.0, -3.0
    thin_x, thin_y = thin(x, y)
    assert len(thin_x) <= POINTS
    assert (np.diff(thin_x) > 0).all()
    assert (thin_y.max(), thin_y.min()) == (5.0, -3.0)


@pytest.mark.parametrize(("low", "high"), [(0.0, 1.0), (-3e9, 4e9), (1e-12, 3e-12), (99.0, 101.0)])
def test_ticks_are_round_and_inside(low: float, high: float) -> None:
    found = ticks(low, high)
    assert 3 <= len(found) <= 12
    assert all(low <= value <= high for value in found)


@pytest.mark.parametrize("values", [[], [0.0], [1.0, 1.0], [np.nan, np.inf], [1e308, -1e308], [1e-320, 0.0]])
def test_plots_of_odd_values(values: list[float]) -> None:
    y = np.array(values, float)
    for kind in ("line", "dots", "bars"):
        text = plot("odd", [Series("a", np.arange(len(y), dtype=float), y, kind)], "x", "y", [Rule(float("nan"), "no")])
        assert "nan" not in text.replace("name", "")
        assert "inf" not in text


def test_a_candidate_whose_turn_did_not_come_is_no_shadow(tmp_path: Path) -> None:
    deployed, candidate, shadow = ("d" * 64, "c" * 64, "e" * 64)
    for turns, said in (([deployed, candidate], "cccccccccccc…"), (None, "shadow cccccccccccc…")):
        manifests = dict.fromkeys((deployed, candidate, shadow), "{}")
        writer = LogWriter(tmp_path / f"{said}.mcap", Session(make_spec().to_json(), manifests, {"turns": turns}))
        writer.event("episode_start", "", 0, 0, {"policy_id": deployed})
        writer.close()
        assert policies(read_log(writer.path)) == f"dddddddddddd…, {said}, shadow eeeeeeeeeeee…"
