"""Policies on another machine: the same answers, in time or an error; and nothing that is sent to either side hurts."""

import errno
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from deploy.cli import main
from deploy.runtime.acting import OUTPUTS, ActingPolicy
from deploy.runtime.check import check_file
from deploy.runtime.policy import OnnxPolicy
from deploy.runtime.serving import keys
from deploy.runtime.serving.address import answering, is_address
from deploy.runtime.serving.client import ServedPolicy
from deploy.runtime.serving.messages import ANSWER, ASK, MAX_MESSAGE, MAX_ROWS, POLICY, REFUSED, WHO, Codec, Packet
from deploy.runtime.serving.server import PolicyServer
from gipo.common.errors import UserError
from robots.cli import main as robot_main
from robots.log import read_log
from robots.session.options import Options
from robots.session.runner import Runner
from tests.needs import needs_sim, needs_torch
from tests.robots.builders import make_spec
from tests.robots.fakes import FakeRobot

zmq = pytest.importorskip("zmq", reason="the extra `serve`")
TOKEN = bytes(range(32))
Kit = dict[str, Any]


@contextmanager
def serving(
    policy: ActingPolicy, token: bytes = TOKEN, kind: type[PolicyServer] = PolicyServer
) -> Iterator[PolicyServer]:
    over = threading.Event()
    with kind(policy, "127.0.0.1:0", token) as server:
        thread = threading.Thread(target=server.serve, args=(over.is_set,))
        thread.start()
        try:
            yield server
        finally:
            over.set()
            thread.join()


@contextmanager
def asking(address: str, **options: Any) -> Iterator[ServedPolicy]:
    policy = ServedPolicy(address, TOKEN, **options)
    try:
        yield policy
    finally:
        policy.close()


@contextmanager
def bare_socket(address: str) -> Iterator[Any]:
    """The socket of one who has the token and says whatever it likes."""
    line = zmq.Context()
    dealer, robot = line.socket(zmq.DEALER), keys.Keys.of(TOKEN, "robot")
    dealer.curve_serverkey = keys.Keys.of(TOKEN, "server").public
    dealer.curve_publickey, dealer.curve_secretkey = robot.public, robot.secret
    dealer.connect(f"tcp://{address}")
    try:
        yield dealer
    finally:
        line.destroy(linger=0)


def test_a_served_policy_answers_as_the_file_does(small: Kit) -> None:
    local: OnnxPolicy = small["loaded"]
    seen = np.random.default_rng(1).standard_normal((MAX_ROWS + 6, 5)).astype(np.float32)
    with serving(local) as server, asking(server.address) as served:
        assert (served.policy_id, served.manifest) == (local.policy_id, local.manifest)
        for deterministic in (False, True):
            here, there = (p.act(seen[0], np.random.default_rng(3), deterministic) for p in (local, served))
            for name in ("action", "latent", "log_prob", "params"):
                np.testing.assert_array_equal(getattr(here, name), getattr(there, name))
        noise = local.noise((len(seen),), np.random.default_rng(4))
        here_all, there_all = (p.evaluate(seen, noise) for p in (local, served))
        for name in OUTPUTS:
            np.testing.assert_allclose(here_all[name], there_all[name], atol=1e-6)  # batched in other parts
            assert here_all[name].dtype == there_all[name].dtype
        latent = here_all["latent"][:3]
        np.testing.assert_allclose(served.log_prob_of(seen[:3], latent), local.log_prob_of(seen[:3], latent), atol=1e-6)
    assert server.refused == 0


def test_a_host_of_several_numbers_is_asked_at_the_one_that_answers(
    small: Kit, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As `localhost` is on most machines: ::1 comes first, and a server listens at 127.0.0.1."""
    true = socket.getaddrinfo

    def found(host: str, *arguments: Any, **options: Any) -> Any:
        numbers = ("::1", "127.0.0.1") if host == "both.lab" else (host,)
        return [each for number in numbers for each in true(number, *arguments, **options)]

    monkeypatch.setattr(socket, "getaddrinfo", found)
    with serving(small["loaded"]) as server:
        port = server.address.rpartition(":")[2]
        assert answering(f"both.lab:{port}") == server.address
        with asking(f"both.lab:{port}") as served:
            assert served.policy_id == small["loaded"].policy_id
    for nobody in (f"127.0.0.1:{port}", "[::1]:1", f"{'a' * 70}.lab:80"):
        assert answering(nobody) == nobody


def test_what_cannot_be_connected_to_is_said_in_one_line(small: Kit, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("deploy.runtime.serving.client.CONNECT_SECONDS", 0.5)
    with serving(small["loaded"], token=bytes(32)) as server, pytest.raises(UserError, match="does not take our token"):
        ServedPolicy(server.address, TOKEN)
    with pytest.raises(UserError, match="cannot be reached"):
        ServedPolicy(server.address, TOKEN)
    # The system takes connections for a process that is stopped.
    said = r"took the connection and said nothing in 0\.5 s: is it paused"
    with socket.create_server(("127.0.0.1", 0)) as paused, pytest.raises(UserError, match=said):
        ServedPolicy(f"127.0.0.1:{paused.getsockname()[1]}", TOKEN)
    with pytest.raises(UserError, match="no address of a policy server"):
        ServedPolicy("127.0.0.1:99999", TOKEN)
    with serving(small["loaded"]) as server:
        with pytest.raises(UserError, match="not the one required"):
            ServedPolicy(server.address, TOKEN, require_id="0" * 64)
        with pytest.raises(UserError, match="cannot listen at"):
            PolicyServer(small["loaded"], server.address, TOKEN)
    for address in ("127.0.0.1:99999", "0.0.0.0:-1", "nowhere"):  # ZeroMQ would take another port
        with pytest.raises(UserError, match="no address to listen at"):
            PolicyServer(small["loaded"], address, TOKEN)


def test_the_servers_key_alone_lets_nobody_in(small: Kit) -> None:
    with serving(small["loaded"]) as server:
        line = zmq.Context()
        dealer = line.socket(zmq.DEALER)
        dealer.curve_serverkey = keys.Keys.of(TOKEN, "server").public
        dealer.curve_publickey, dealer.curve_secretkey = zmq.curve_keypair()
        events = dealer.get_monitor_socket(zmq.EVENT_HANDSHAKE_SUCCEEDED | zmq.EVENT_HANDSHAKE_FAILED_AUTH)
        try:
            dealer.connect(f"tcp://{server.address}")
            assert events.poll(10_000)
            event = int.from_bytes(events.recv_multipart()[0][:2], "little")
            assert event == zmq.EVENT_HANDSHAKE_FAILED_AUTH
        finally:
            dealer.disable_monitor()
            line.destroy(linger=0)


@needs_torch
def test_a_server_started_anew_with_another_policy_is_not_asked_by_mistake(small: Kit, tmp_path: Path) -> None:
    from tests.robots.artifacts import changed

    observation = np.zeros(5, np.float32)
    with serving(small["loaded"]) as server, asking(server.address) as served:
        served.act(observation, np.random.default_rng(0))
        server._policy = other = OnnxPolicy.load(changed(small["file"], tmp_path / "newer.onnx", policy_version=8))
        server._codec = Codec(other.manifest, other.policy_id)
        with pytest.raises(UserError, match=r"refuses: the question is for policy \w+…, here acts \w+… now"):
            served.act(observation, np.random.default_rng(0))


class Slow(ActingPolicy):
    """A policy that takes its time, or breaks down."""

    def __init__(self, inner: OnnxPolicy):
        super().__init__(inner.manifest, inner.policy_id)
        self.inner, self.wait = inner, 0.0

    def _outputs(self, names: tuple[str, ...], rows: np.ndarray, noise: np.ndarray) -> list[np.ndarray]:
        time.sleep(self.wait)
        if len(rows) > 8:
            raise MemoryError("out of it")
        found = self.inner.evaluate(rows, noise)
        return [found[name] for name in names]


class Off(Slow):
    """A policy that decides otherwise than its golden vectors say, or nothing that is a number."""

    by = np.float32(0.0)

    def _outputs(self, names: tuple[str, ...], rows: np.ndarray, noise: np.ndarray) -> list[np.ndarray]:
        found = dict(zip(names, super()._outputs(names, rows, noise), strict=True))
        return list((found | {"action": found["action"] + self.by}).values())


def test_no_robot_acts_by_a_server_that_does_not_give_its_golden_vectors(small: Kit) -> None:
    policy = Off(small["loaded"])
    policy.by = np.float32(1e-3)
    with serving(policy) as server, pytest.raises(UserError, match="golden vector 0: action of"):
        ServedPolicy(server.address, TOKEN)


def test_no_robot_is_told_an_action_that_is_no_number(small: Kit) -> None:
    policy = Off(small["loaded"])
    with serving(policy) as server, asking(server.address) as served:
        policy.by = np.float32(np.nan)
        with pytest.raises(UserError, match="action that is not finite"):
            served.act(np.zeros(5, np.float32), np.random.default_rng(0))


def test_a_message_longer_than_any_question_is_hung_up_on(small: Kit) -> None:
    local: OnnxPolicy = small["loaded"]
    longest = Codec(local.manifest, local.policy_id).longest
    with serving(local) as server, bare_socket(server.address) as dealer:
        events = dealer.get_monitor_socket(zmq.EVENT_DISCONNECTED)
        dealer.send(bytes(longest + 1))
        assert events.poll(10_000), "it was taken"
        dealer.disable_monitor()
        with asking(server.address) as served:
            for rows in (1, MAX_ROWS):
                found = served.act(np.zeros((rows, 5), np.float32), np.random.default_rng(0))
                assert found.action.shape == (rows, 2)


def test_an_answer_that_is_late_is_an_error_and_never_taken_for_the_next(small: Kit) -> None:
    slow, seen = Slow(small["loaded"]), np.random.default_rng(0).standard_normal((2, 5)).astype(np.float32)
    with serving(slow) as server, asking(server.address) as served:
        served.answer_within(0.1)
        slow.wait = 0.4
        began = time.monotonic()
        with pytest.raises(UserError, match="did not answer within 100 ms"):
            served.act(seen[0], np.random.default_rng(0))
        assert time.monotonic() - began < 0.3
        slow.wait = 0.0
        served.answer_within(5.0)
        found = served.act(seen[1], np.random.default_rng(0))
        np.testing.assert_array_equal(found.action, small["loaded"].act(seen[1], np.random.default_rng(0)).action)


def test_threads_that_wait_for_each_other_wait_no_longer_than_for_an_answer(small: Kit) -> None:
    slow, late = Slow(small["loaded"]), []
    with serving(slow) as server, asking(server.address) as served:
        slow.wait = 0.4
        served.answer_within(0.5)

        def ask() -> None:
            try:
                served.act(np.zeros(5, np.float32), np.random.default_rng(0))
            except UserError as error:
                late.append(str(error))

        threads = [threading.Thread(target=ask) for _ in range(4)]
        began = time.monotonic()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert time.monotonic() - began < 1.5
        assert len(late) >= 2
        with served._lock, pytest.raises(UserError, match=r"did not answer another question in 0\.5 s"):
            served.act(np.zeros(5, np.float32), np.random.default_rng(0))


def test_as_many_rows_are_asked_for_together_as_an_answer_may_have(small: Kit) -> None:
    manifest = small["loaded"].manifest
    assert Codec(manifest, "0" * 64).rows_together == MAX_ROWS
    large = SimpleNamespace(  # 100 actions of 14 dimensions, 256 bins
        layout=SimpleNamespace(row_size=5, decision_size=1400), observation_size=5, parameters_per_dimension=256,
        family="token",
    )  # fmt: skip
    codec = Codec(large, "0" * 64)  # type: ignore[arg-type]
    answer = {name: np.zeros((codec.rows_together, *shape), kind) for name, (kind, shape) in
              zip(OUTPUTS, codec._outputs, strict=True)}  # fmt: skip
    assert codec.rows_together == 11
    assert len(codec.answer(answer)) < MAX_MESSAGE < 12 / 11 * len(codec.answer(answer))


def test_why_nothing_was_heard_is_what_happened_last(small: Kit) -> None:
    with serving(Slow(small["loaded"])) as server, asking(server.address) as served:
        failed, succeeded, connected = (
            getattr(zmq, f"EVENT_{name}") for name in ("HANDSHAKE_FAILED_NO_DETAIL", "HANDSHAKE_SUCCEEDED", "CONNECTED")
        )
        line = served._line
        for events, said in (
            ((connected, failed, connected, succeeded), "did not answer within 500 ms"),
            ((succeeded, connected, failed), "does not take our token"),
            ((connected,), "took the connection and said nothing"),
        ):
            waiting = list(events)
            line._events = SimpleNamespace(
                poll=lambda _, waiting=waiting: bool(waiting),
                recv_multipart=lambda waiting=waiting: [waiting.pop(0).to_bytes(2, "little")],
            )
            assert said in line.silence(0.5)


def test_a_question_that_breaks_the_policy_ends_no_other(small: Kit) -> None:
    with serving(Slow(small["loaded"])) as server, asking(server.address) as served:
        with pytest.raises(UserError, match="refuses: out of it"):
            served.act(np.zeros((9, 5), np.float32), np.random.default_rng(0))
        with pytest.raises(UserError, match="refuses: the noise is not finite"):
            served._answers(np.zeros((1, 5), np.float32), np.full((1, 2), np.nan, np.float32))
        served.act(np.zeros(5, np.float32), np.random.default_rng(0))
    with pytest.raises(UserError, match="is closed"):
        served.act(np.zeros(5, np.float32), np.random.default_rng(0))


def mutations(data: bytes, count: int, seed: int = 0) -> Iterator[bytes]:
    """Messages cut, lengthened, with bytes changed, or of nothing but noise."""
    rng = np.random.default_rng(seed)
    for i in range(seed, seed + count):
        changed = bytearray(data)
        if i % 4 == 0:
            changed = changed[: rng.integers(0, len(data))]
        elif i % 4 == 1:
            changed += rng.bytes(int(rng.integers(1, 200)))
        elif i % 4 == 2:
            changed = bytearray(rng.bytes(int(rng.integers(0, 200))))
        for _ in range(int(rng.integers(1, 4))):
            if changed:
                changed[rng.integers(0, min(len(changed), 60))] = rng.integers(0, 256)
        yield bytes(changed)


@pytest.mark.parametrize("count", [400, pytest.param(10_000, marks=pytest.mark.campaign)])
def test_no_message_stops_or_changes_a_server(small: Kit, count: int) -> None:
    local: OnnxPolicy = small["loaded"]
    codec = Codec(local.manifest, local.policy_id)
    good = Packet(ASK, 1, codec.question(np.zeros((1, 5), np.float32), np.full((1, 2), 0.5, np.float32))).pack()
    with serving(local) as server, bare_socket(server.address) as dealer, asking(server.address) as served:
        for data in mutations(good, count):
            dealer.send(data)
            assert dealer.poll(5000), "no reply"
            said = Packet.unpack(dealer.recv())
            assert said.kind in (REFUSED, ANSWER, POLICY)
            assert said.kind != REFUSED or said.text
        dealer.send_multipart([b"two", b"parts"])
        assert dealer.poll(5000)
        dealer.recv()
        seen = np.ones(5, np.float32)
        here, there = (p.act(seen, np.random.default_rng(3)) for p in (local, served))
        np.testing.assert_array_equal(here.action, there.action)
    assert server.refused > count / 2


class Liar(PolicyServer):
    """A server that says, of what it should, one change after another."""

    lies: Iterator[bytes] | None = None

    def _reply(self, data: bytes) -> Any:
        said = super()._reply(data)
        if self.lies is None:
            return said
        if said.kind == ANSWER:
            self.lies = mutations(said.pack(), 1, seed=said.number)
        return SimpleNamespace(pack=lambda: next(self.lies, b""))  # type: ignore[arg-type]


@pytest.mark.parametrize("count", [100, pytest.param(10_000, marks=pytest.mark.campaign)])
def test_no_answer_that_is_not_whole_makes_a_robot_act(small: Kit, count: int) -> None:
    local: OnnxPolicy = small["loaded"]
    observation, refused, passed = np.zeros(5, np.float32), 0, 0
    expected = local.act(observation, np.random.default_rng(0))
    with serving(local, kind=Liar) as server, asking(server.address) as served:
        served.answer_within(0.03)
        server.lies = iter(())  # type: ignore[attr-defined]
        for _ in range(count):
            try:
                found = served.act(observation, np.random.default_rng(0))
            except UserError as error:
                refused += "\n" not in str(error)
            else:  # numbers were changed, and nothing else
                passed += 1
                assert np.isfinite(found.action).all()
                assert found.action.shape == expected.action.shape
    assert refused + passed == count
    assert refused > count / 2


def test_strangers_half_open_connections_and_slow_readers_keep_nobody_waiting(small: Kit) -> None:
    with serving(small["loaded"]) as server:
        host, port = server.address.split(":")
        half_open = [socket.create_connection((host, int(port))) for _ in range(20)]
        for stranger in half_open[10:]:
            stranger.sendall(os.urandom(500))
        with bare_socket(server.address) as deaf:
            for number in range(500):
                deaf.send(Packet(WHO, number).pack())  # and never reads
            with asking(server.address) as served:
                served.answer_within(2.0)
                expected = small["loaded"].act(np.zeros(5, np.float32), np.random.default_rng(0)).action
                for _ in range(20):
                    found = served.act(np.zeros(5, np.float32), np.random.default_rng(0)).action
                    np.testing.assert_array_equal(found, expected)
        for stranger in half_open:
            stranger.close()


@pytest.mark.parametrize("questions", [40, *(pytest.param(n, marks=pytest.mark.campaign) for n in (12, 20, 100) * 3)])
def test_a_robot_that_hangs_up_with_questions_unanswered_ends_no_server(small: Kit, questions: int) -> None:
    """libzmq aborts the process where a heartbeat is due of one whose questions are no longer read."""
    command = [sys.executable, "-m", "tests.deploy.slow_server", str(small["file"]), "0.3"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as server:
        try:
            address = server.stdout.readline().strip()  # type: ignore[union-attr]
            with asking(address) as served:
                served.answer_within(0.02)
                for _ in range(questions):
                    with suppress(UserError):
                        served.act(np.zeros(5, np.float32), np.random.default_rng(0))
            time.sleep(3.0)  # a heartbeat was due every second
            assert server.poll() is None, server.stderr.read()  # type: ignore[union-attr]
            with bare_socket(address) as another:
                another.send(Packet(WHO, 1).pack())
                assert another.poll(1000 * (0.3 * questions + 5.0)), "it answers no more"
            assert server.poll() is None
        finally:
            server.kill()


def test_what_is_to_be_installed_is_never_a_name_of_an_index(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "zmq", None)
    with pytest.raises(UserError, match=r"needs pyzmq .*: pip install '\.\[serve\]' in a clone of gipo$"):
        keys.zeromq()


def test_tokens_are_private_and_whole(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "token"
    assert main(["token", str(file)]) == 0
    assert file.stat().st_mode & 0o777 == 0o600
    assert len(keys.read_token(file)) == keys.SIZE
    assert main(["token", str(file)]) == 2
    assert "would lock out whoever has it" in capsys.readouterr().err
    assert main(["token", str(tmp_path)]) == 2
    assert "is a folder; name a file in it" in capsys.readouterr().err
    file.chmod(0o644)
    with pytest.raises(UserError, match="others may read the token"):
        keys.read_token(file)
    file.chmod(0o600)
    file.write_text("secret")
    with pytest.raises(UserError, match="is no token"):
        keys.read_token(file)


def test_a_token_that_did_not_fit_on_the_disk_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(UserError, match="cannot be written: No space left"):
            keys.write_token(tmp_path / "token")
    keys.write_token(tmp_path / "token")
    assert len(keys.read_token(tmp_path / "token")) == keys.SIZE


def test_a_port_is_free_again_when_a_second_signal_ends_its_server(small: Kit, monkeypatch: pytest.MonkeyPatch) -> None:
    server = PolicyServer(small["loaded"], "127.0.0.1:0", TOKEN)
    with monkeypatch.context() as patch:
        patch.setattr(server._doorman, "stop", lambda: sys.exit(130))
        with pytest.raises(SystemExit):
            server.close()
    for _ in range(50):  # a socket is closed by a thread of ZeroMQ's
        with suppress(UserError):
            PolicyServer(small["loaded"], server.address, TOKEN).close()
            break
        time.sleep(0.02)
    else:
        pytest.fail(f"{server.address} is in use")
    server.close()


def test_a_server_that_a_signal_ends_while_it_is_made_leaves_no_thread(
    small: Kit, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = set(threading.enumerate())
    made: list[Any] = []
    monkeypatch.setattr(keys.Keys, "of", lambda token, side: (made.extend(threading.enumerate()), sys.exit(130)))
    with pytest.raises(SystemExit):
        PolicyServer(small["loaded"], "127.0.0.1:0", TOKEN)
    assert set(made) > before
    assert set(threading.enumerate()) == before


def test_a_run_whose_robot_cannot_be_made_hangs_up(
    small: Kit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    closed: list[str] = []
    monkeypatch.setattr(ServedPolicy, "close", lambda policy: (closed.append(policy.address), policy._line.close()))
    keys.write_token(tmp_path / "token")
    with serving(small["loaded"], keys.read_token(tmp_path / "token")) as server:
        words = ["run", "--policy", server.address, "--token", str(tmp_path / "token"), "--robot", "none"]
        assert robot_main(words) == 2
        assert closed == [server.address]
    assert "there is no robot 'none'" in capsys.readouterr().err


@pytest.mark.parametrize(("text", "yes"), [
    ("gpu.lab:5570", True), ("10.0.0.1:80", True), ("[::1]:80", True),
    ("policy.onnx", False), ("runs/a:1/p.onnx", False), ("C:\\policies\\a.onnx", False), ("host:port", False),
])  # fmt: skip
def test_an_address_is_told_from_a_file(text: str, yes: bool) -> None:
    assert is_address(text) is yes


@contextmanager
def server_process(file: Path, folder: Path) -> Iterator[tuple["subprocess.Popen[str]", str, Path]]:
    """A server in a process of its own, where it is, and the token."""
    token = folder / "token"
    keys.write_token(token)
    command = [sys.executable, "-m", "deploy.cli", "serve", file, "--token", token, "--bind", "127.0.0.1:0"]
    with subprocess.Popen(list(map(str, command)), stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        try:
            yield server, server.stdout.readline().split(" at ")[1].split(";")[0], token
        finally:
            server.send_signal(signal.SIGCONT)
            server.send_signal(signal.SIGTERM)


@needs_torch
@needs_sim
def test_a_run_asks_a_server_and_its_log_is_audited_as_any(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from robots.cli import main as robot
    from tests.robots.artifacts import make_artifact

    file = make_artifact(tmp_path / "token.onnx")
    with server_process(file, tmp_path) as (server, address, token):
        run = ["run", "--episodes", "1", "--steps", "30", "--speed", "50", "--log", str(tmp_path / "logs")]
        assert robot([*run, "--policy", address, "--token", str(token)]) == 0
        assert robot([*run, "--policy", address]) == 2
        assert robot([*run, "--policy", str(file), "--token", str(token)]) == 2
        server.send_signal(signal.SIGTERM)
        assert server.wait(10) == 0
        assert server.stdout is not None
        assert "refused 0" in server.stdout.read()
    assert robot(["audit", str(tmp_path / "logs"), "--policies", str(tmp_path)]) == 0
    captured = capsys.readouterr()
    assert "0.0e+00" in captured.out  # every action again, from the seed alone
    assert "as --token FILE" in captured.err
    assert "is a file" in captured.err


@needs_torch
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP])
def test_a_server_that_dies_or_hangs_stops_the_robot_within_two_periods(
    small: Kit, tmp_path: Path, how: signal.Signals
) -> None:
    from tests.robots.artifacts import changed

    file = changed(small["file"], tmp_path / "slow.onnx", control_rate_hz=10.0)
    manifest = check_file(file).manifest
    names = {key: getattr(manifest, key) for key in (
        "observation_names", "observation_units", "action_names", "action_units", "action_low", "action_high",
        "control_rate_hz")}  # fmt: skip
    spec = make_spec(**names, **dict.fromkeys(("action_rate", "action_acceleration"), (9.0, 9.0)),
                     action_hold=(0.0, 1.0))  # fmt: skip
    with server_process(file, tmp_path) as (server, address, token):
        served = ServedPolicy(address, keys.read_token(token))
        served.answer_within(0.9 * Options.deadline * spec.period_ns / 1e9)
        threading.Timer(0.6, server.send_signal, (how,)).start()
        report = Runner(FakeRobot(spec), served, Options(steps=100), tmp_path / "logs").run(1, seed=0)
        served.close()
    assert report.results[0].stopped
    (path,) = (tmp_path / "logs").glob("*.mcap")
    log = read_log(path)
    assert log.integrity.status == "sealed"
    (stop,) = (event for event in log.events if event["kind"] == "stop")
    assert "did not answer within 112 ms" in stop["reason"]
    asked = log.episodes[-1]["monotonic_ns"][-1] + spec.period_ns  # the tick that got no answer began then
    assert stop["monotonic_ns"] - asked <= 2 * spec.period_ns


@needs_torch
def test_a_checkpoint_is_served_by_torch(
    small: Kit, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    from deploy.export.checkpoint_policy import CheckpointPolicy
    from gipo.checkpoints import load_checkpoint

    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)  # torch's default

    local: OnnxPolicy = small["loaded"]
    seen = np.random.default_rng(5).standard_normal((20, 5)).astype(np.float32)
    noise = local.noise((len(seen),), np.random.default_rng(6))
    with serving(CheckpointPolicy(small["checkpoint"], rate=50.0)) as server, asking(server.address) as served:
        here, there = local.evaluate(seen, noise), served.evaluate(seen, noise)
    assert not torch.backends.cudnn.allow_tf32
    np.testing.assert_array_equal(here["latent"], there["latent"])
    for name in ("action", "log_prob", "params"):
        np.testing.assert_allclose(here[name], there[name], atol=1e-5)
    assert served.manifest.golden.noise != local.manifest.golden.noise  # its own: four, answered by torch
    token = tmp_path / "token"
    keys.write_token(token)
    for words, message in (
        ([small["checkpoint"]], "names no interface"),
        ([small["checkpoint"], "--rate", "50", "--device", "meat"], "--device meat"),
        ([small["checkpoint"], "--rate", "50", "--require-id", "0" * 64], "not the one required"),
        ([small["file"], "--rate", "50"], "are for checkpoints"),
        ([small["file"], "--spec", "arm.json"], "are for checkpoints"),
        ([small["checkpoint"], "--spec", tmp_path / "none.json"], "cannot read"),
        ([tmp_path / "none.onnx"], "cannot read"),
    ):
        assert main(["serve", *map(str, words), "--token", str(token), "--bind", "127.0.0.1:0"]) == 2
        assert message in capsys.readouterr().err
    os.mkfifo(tmp_path / "pipe")
    assert main(["serve", str(tmp_path / "pipe"), "--token", str(token)]) == 2
    assert "pipe" in capsys.readouterr().err
    changing = tmp_path / "last.ckpt"

    def replaced(path: Path) -> Any:
        found = load_checkpoint(path)
        path.write_bytes(small["checkpoint"].read_bytes() + b"\0")
        return found

    monkeypatch.setattr("deploy.export.checkpoint_policy.load_checkpoint", replaced)
    shutil.copy(small["checkpoint"], changing)
    with pytest.raises(UserError, match=r"last\.ckpt changed while it was read"):
        CheckpointPolicy(changing, rate=50.0)
