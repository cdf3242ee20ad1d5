"""`python -m tests.deploy.slow_server ARTIFACT SECONDS`: a server that takes so long once somebody is connected."""

import sys
import time

import numpy as np

from deploy.runtime.acting import ActingPolicy
from deploy.runtime.policy import OnnxPolicy
from deploy.runtime.serving.server import PolicyServer

TOKEN = bytes(range(32))


class Slow(ActingPolicy):
    """Answers as another one, late once a first robot has asked its golden vectors."""

    def __init__(self, policy: OnnxPolicy, seconds: float):
        super().__init__(policy.manifest, policy.policy_id)
        self._policy, self._seconds, self._quick = policy, seconds, len(policy.manifest.golden.noise)

    def _outputs(self, names: tuple[str, ...], rows: np.ndarray, noise: np.ndarray) -> list[np.ndarray]:
        self._quick -= 1
        if self._quick < 0:
            time.sleep(self._seconds)
        found = self._policy.evaluate(rows, noise)
        return [found[name] for name in names]


if __name__ == "__main__":
    file, seconds = sys.argv[1:]
    with PolicyServer(Slow(OnnxPolicy.load(file), float(seconds)), "127.0.0.1:0", TOKEN) as server:
        print(server.address, flush=True)
        server.serve()
