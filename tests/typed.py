"""How a line of a page is typed where it is not typed bare: a table for each reason, and none besides."""

import re
import shlex
import subprocess
from collections.abc import Callable

import tomllib

import deploy.cli
import robots.cli
from benchmarks import bins, curves, fit
from benchmarks.__main__ import BENCHMARKS
from benchmarks.peers import __main__ as peers
from benchmarks.simulators import transfer
from gipo.commands.studies.cli import build_parser
from robots.people.load import OURS
from tests.pages import ROOT

# Options appended to a line, of all patterns that it matches: the later ones count.
FIT = """--trainer.max_epochs=1 --data.frames_per_iteration=8 --data.warmup_frames=0 --data.capacity=64 --data.rounds=1
    --data.batch=16 --data.collector.num_envs=2 --data.evaluation.num_envs=1"""
LOGS = "--trainer.max_epochs=1 --data.rounds=1 --data.batch=16 --model.critic_warmup=0 --data.min_ess=0"
SMALLER = {
    r"^gipo fit(?!.*(post_train|bc)\.yaml)": FIT,
    r"^gipo fit( --config (toy_vla.yaml|metaworld.yaml --seed_everything=1))?$": """--trainer.check_val_every_n_epoch=1
        --data.evaluation.episodes=1""",
    r"^gipo fit.*(post_train|bc)\.yaml": LOGS,
    r"^gipo fit.*post_train_bc\.yaml": "--data.successes_only=false",  # robots of tests succeed in no 30 steps
    r"^gipo fit.*(ray|ddp|Libero|libero)": "--data.collector.num_envs=1 --data.evaluation.episodes=1",
    r"^gipo test": "--data.evaluation.num_envs=1 --data.evaluation.test_episodes=1",
    r"^gipo estimate": "--effective 2",
    r"^gipo-robot run": "--episodes 4 --steps 30 --deadline 50 --max-age 60",
    r"^gipo-robot run (?!.*--robot)": "--speed 20",
    r"^gipo-robot run .*--robot (my_|lerobot)": "--episodes 2 --steps 15",  # in real time
    r"^gipo-robot run .*lerobot": "--set wait=false",
    r"^gipo-study loop.*camera:": """--seeds 22 --demonstrations 2 --logged 2 --episodes 2 --rounds 1 --processes 1
        --train data.iterations=1 data.rounds=1 data.batch=8 data.evaluation.episodes=1 data.evaluation.num_envs=1
        --post data.iterations=2 data.rounds=1 data.batch=4 data.min_ess=0 data.ingest.workers=1""",
    r"^gipo-study loop(?!.*camera:)": """--seeds 22 --frames 40 --logged 2 --episodes 2 --rounds 1 --processes 1
        --train data.frames_per_iteration=20 data.collector.num_envs=1 data.evaluation.num_envs=1 data.rounds=1
        data.batch=16 data.capacity=40 --post data.iterations=2 data.rounds=1 data.batch=16 data.min_ess=0
        data.ingest.workers=1""",
    # Loops of its own: those that were typed before it are of 40 steps, and too few.
    r"^gipo-study posttrain": "--seeds 22 --back 1 --objectives GIPO --frames 20000 --logged 3 --episodes 2",
    r"^gipo-study posttrain(?!.*--task)": "--loops studies/smaller",
    r"^gipo-study posttrain.*--task": "--loops studies/smaller-task",
    r"^gipo-study people": """--loops studies/small --seeds 22 --frames 40 --logged 2 --episodes 2 --processes 1
        --coefs 1 --train data.frames_per_iteration=20 data.collector.num_envs=1 data.evaluation.num_envs=1
        data.rounds=1 data.batch=16 data.capacity=40 --post data.iterations=2 data.rounds=1 data.batch=16 data.min_ess=0
        data.ingest.workers=1""",
    r"^gipo-study staleness(?!.*--runs)": """--tasks reach-v3 --seeds 22 --objectives GIPO --ages 1 --frames 32
        --frames-per-iteration 16 --episodes 1 --processes 1""",
    r"^gipo-study staleness(?!.*(stored|--runs))": "--train data.collector.num_envs=1 data.rounds=1 data.batch=16",
    r"^gipo-study staleness.*=stored": """--train data.advantages=stored data.collector.num_envs=1
        data.rounds=1 data.batch=16""",
    r"^gipo-study recipe": """--tasks reach-v3 --seeds 0 --rounds 1 --runs 1 --frames 32 --final-frames 32 --processes 1
        --factors decay --train data.frames_per_iteration=16 trainer.check_val_every_n_epoch=1 data.rounds=1
        data.batch=16 data.collector.num_envs=1 data.evaluation.episodes=1 data.evaluation.num_envs=1""",
    r"^gipo-study demonstrations": """--tasks reach-v3 --seeds 22 --objectives GIPO --buffers 1 --demonstrations 2
        --iterations 1 --frames 1000 --frames-per-iteration 1000 --episodes 1 --processes 1
        --clone data.rounds=1 data.evaluation.num_envs=1
        --post data.rounds=1 data.evaluation.num_envs=1""",
    r"^gipo-study fifty": """--tasks reach-v3 --seeds 1 --entrants GIPO --frames 16 --every 16 --processes 1
        --train data.frames_per_iteration=16 data.rounds=1 data.batch=16 data.collector.num_envs=2""",
    r"^gipo-study theory": "--draws=10 --studies=5",
    r"examples/torchrl_gipo": "--iterations 2 --frames 128 --buffer 256 --batch 64 --updates 2",
    r"^gipo-demos": "--episodes 2",
    r"benchmarks\.simulators": "reach-v3",
}

PLACEHOLDERS = {
    r"\bSEED\b": "1", r"\[(--quarantine FOLDER)\]": r"\1", r"LOG…|LOG\b": "logs/*.mcap",
    r"--policies FOLDER": "--policies .", r"(--quarantine|--out) FOLDER": r"\1 new-folder",
    r"RUN=FOLDER": "RUN=runs/demo", r"diff A B": "diff policy.onnx policy.onnx",
    r"^gipo-deploy export … ": "gipo-deploy export runs/reach-v3-0/checkpoints/best.ckpt --out int8.onnx ",
    r"\bID\b": "0" * 64, r"\bFILE\b": "file", r"--reward x": "--reward 1",
    r"--model\.objective=$": "--model.objective=GIPO", r"--model\.policy=$": "--model.policy=TokenPolicy",
    r"--model\.value_scale=$": "--model.value_scale=PopArt",
    # one episode is labelled, not those of every log
    r"^(gipo-robot (?:label|info)) logs/\*\.mcap": r"\1 logs/*sim*.mcap",
}  # fmt: skip

RESUMED = "gipo fit"  # writes runs/reach-v3-0
EXPORTED = "gipo-deploy export runs/reach-v3-0/checkpoints/best.ckpt --out policy.onnx"
DRIVEN = "gipo-robot run --policy policy.onnx --episodes 10 --log logs/"
LEARNED = "gipo fit --config post_train.yaml --data.logs=logs/ --model.init_from=runs/reach-v3-0/checkpoints/best.ckpt"
TRAINED = "gipo fit --config metaworld.yaml --seed_everything=SEED"  # writes it, where it comes first on a page
BUILDS_ON = {  # what a reader of a page has typed before, from other pages
    "deploy": [RESUMED],
    "evaluate": [RESUMED, EXPORTED, DRIVEN, LEARNED],
    "evidence": [TRAINED, EXPORTED],
    "people": [RESUMED, EXPORTED, DRIVEN],
    "post-train": [RESUMED, EXPORTED, DRIVEN],
    "robots": [RESUMED, EXPORTED],
}

LONG = (
    r"backend=ray|strategy=ddp",  # start clusters and learners: tests of their own
    r"libero|runs/cloned|runs/improved",  # minutes of simulation
    r"^gipo-study posttrain",  # 20 000 steps of training at the least
    r"--out studies/(development|claim|widths)",  # days of training: their options are parsed where the study is tested
    r"^gipo-study demonstrations",  # three commands: its own test makes them, in the campaign
    r"^gipo-study people",  # twenty commands
    r"^gipo-study fifty",  # a test of 50 episodes: its own test runs it with one
    r"^gipo-study loop",  # eight commands: its own test runs them in one process, and looks at what comes out
    r"runs/seeing|seeing\.onnx|seen/",  # a loop of its own: tests/test_sight.py goes through it
    r"runs/two|two\.onnx|two/",  # the same of two cameras: tests/test_two_cameras.py
    r"studies/estimates",  # minutes of a robot; the commands are typed above, on smaller logs
    r"workers=2$",  # starts worker processes, as the asynchronous line does, which is typed
)
CONTEXT = {  # what the text around an option names before it
    "--model.objective.statistic": "--model.objective=gipo.adaptive.AdaptiveGIPO",
    "--model.objective.sigma_age": "--model.objective=AgeAwareGIPO",
    "--model.policy.state_free_std": "--model.policy=GaussianPolicy",
    "--data.iterations": "--config=bc.yaml",
    "--data.behaviour": "--config=post_train.yaml",
    "--data.min_ess": "--config=post_train.yaml",
    "--data.human_share": "--config=post_train.yaml",
    "--data.collector.max_steps": "--config=libero.yaml",
    "--data.task.shown": "--config=toy_vla.yaml",
}


def installs(line: str) -> None:
    """A `pip install` of this clone: its extras and its constraints are there."""
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    target = re.search(r"'?\.(?:\[([\w,]+)\])?'?$", line)
    assert target, f"{line}: it does not install this clone"
    assert set(filter(None, (target[1] or "").split(","))) <= set(extras), line
    assert "-c" not in line.split() or (ROOT / line.split()[line.split().index("-c") + 1]).exists()


def makes(line: str) -> None:
    """A target of the Makefile, which calls a study that there is."""
    done = subprocess.run([*line.split(), "--dry-run"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for study in re.findall(r"gipo-study (.*)$", done.stdout, re.M):
        words = shlex.split(study)
        build_parser(words[0]).parse_args(words)


TRANSFER = "benchmarks.simulators.transfer"


def measures(line: str) -> None:
    """Benchmarks that there are, and options of those that have a command of their own."""
    module, *words = shlex.split(line)[2:]
    if module in (
        commands := {
            "benchmarks.bins": bins, "benchmarks.curves": curves, "benchmarks.fit": fit, "benchmarks.peers": peers,
            TRANSFER: transfer,
        }
    ):  # fmt: skip
        commands[module].build_parser().parse_args(words)
    else:
        assert set(words) <= {*BENCHMARKS, "…"}, line


def tests(line: str) -> None:
    """Tests, or a module of theirs, that there are."""
    for word in line.split()[2:]:
        assert (ROOT / word).exists() or (ROOT / word.replace(".", "/")).with_suffix(".py").exists() or word == "pytest"


def builds(line: str) -> None:
    """Folders that the C++ example has."""
    for word in line.split():
        assert not word.startswith("examples/") or (ROOT / word / "CMakeLists.txt").exists()


def exists(line: str) -> None:
    """A module of the examples that there is."""
    module = ROOT / line.split()[2].replace(".", "/")
    assert (module / "__main__.py").exists() or module.with_suffix(".py").exists()


def configures(line: str) -> None:
    """A configuration that comes with the package."""
    assert (ROOT / "gipo" / "configs" / shlex.split(line)[shlex.split(line).index("--config") + 1]).exists()


def nothing(line: str) -> None:
    """Another program's business."""


def helps(line: str) -> None:
    """Operators that there are."""
    assert re.findall(r"--operator (\S+)", line)[0] in OURS


def parses(line: str) -> None:
    """Options that a command has."""
    program, *words = shlex.split(line)
    {"gipo-deploy": deploy.cli, "gipo-robot": robots.cli}[program].build_parser().parse_args(words)


NOT_TYPED: dict[str, tuple[str, Callable[[str], None]]] = {
    r"^pip install": ("would change the environment of the tests; a test installs the clone elsewhere", installs),
    r"^make ": ("would test within tests, and `make demo` is `gipo-study loop`, which is typed", makes),
    r"^python -m benchmarks": ("minutes each; the benchmarks' own tests run them", measures),
    r"^python -m (pytest|tests\.)": ("would test within tests", tests),
    r"--operator (keyboard|gamepad)": ("needs a person; tests type at a terminal, and press a device's buttons", helps),
    r"^gipo-deploy serve": ("answers until it is ended; a test starts it, asks it and ends it", parses),
    r"^gipo-robot run --policy \S+:\d+": ("asks that server; the same test types it", parses),
    r"^python -m examples\.so101": ("servos that answer until they are ended, or hours; its own tests run it", exists),
    r"examples\.so101\.desk": ("needs LeRobot beside this package; tests of that environment drive it", parses),
    r"desk/taught": (
        "needs what the real lerobot-record writes; a test of that environment records and clones",
        configures,
    ),
    r"^(\. |pre-commit )": ("the reader's own shell and clone", nothing),
    r"^(cmake|build/cpp)": ("needs ONNX Runtime's headers; the C++ test builds and runs it where they are", builds),
    r"^(ray|torchrun) ": ("a cluster of several machines; the tests of Ray start one themselves", nothing),
    r"^(ssh-keygen|gpg|apt-get) ": ("another program, named for what it is good for", nothing),
    r"^gipo-robot (compare DEPLOYED|promote CANDIDATE)": (
        "two policies are needed; it is typed on the page that it links to",
        parses,
    ),
    r"^gipo test … ": ("the option is parsed; the command is that of the chapter on training", nothing),
}


def substituted(line: str) -> str:
    """A line with something in each open place."""
    for pattern, found in PLACEHOLDERS.items():
        line = re.sub(pattern, found, line)
    return line


def smaller(line: str) -> str:
    """What is appended to a line."""
    return " ".join(more for pattern, more in SMALLER.items() if re.search(pattern, line))


def is_long(line: str) -> bool:
    """Whether only the campaign types it."""
    return any(re.search(pattern, line) for pattern in LONG)
