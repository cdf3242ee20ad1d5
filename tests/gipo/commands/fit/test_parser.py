"""Options of classes that nobody named, and mistakes in one line that names the option, its value and the way out."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from gipo.cli import main

Capture = pytest.CaptureFixture[str]


@pytest.fixture
def printed(capsys: Capture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """`printed(*args, **configs)`: the configuration of `gipo fit`, YAMLs written to files of these names before."""
    monkeypatch.chdir(tmp_path)

    def configuration(*args: str, **configs: str) -> dict[str, Any]:
        for name, text in configs.items():
            Path(f"{name}.yaml").write_text(text)
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main(["fit", *args, "--print_config"])
        assert ended.value.code in (0, None), capsys.readouterr().err
        return yaml.safe_load(capsys.readouterr().out)

    return configuration


@pytest.fixture
def refused(capsys: Capture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """`refused(*args, **configs)`: the one line on stderr of `gipo` with these arguments."""
    monkeypatch.chdir(tmp_path)

    def line(*args: str, **configs: str | bytes) -> str:
        for name, text in configs.items():
            Path(f"{name}.yaml").write_bytes(text if isinstance(text, bytes) else text.encode())
        capsys.readouterr()
        with pytest.raises(SystemExit, match="2"):
            main(list(args))
        error = capsys.readouterr().err
        assert error.startswith("gipo: error: ")
        assert error.count("\n") == 1
        return error.removeprefix("gipo: error: ").rstrip("\n")

    return line


TOKENS, GAUSSIAN = "gipo.policies.TokenPolicy", "gipo.policies.GaussianPolicy"
GAUSS = f"{{model: {{policy: {{class_path: {GAUSSIAN}, init_args: {{std_min: 0.2}}}}}}}}"
POLICIES: dict[str, tuple[list[str], str, dict[str, object]]] = {
    "an option": (["--model.policy.bins=33"], TOKENS, {"bins": 33}),
    "one of its network": (["--model.policy.network.hidden=[16]"], TOKENS, {"normalise": True}),
    "in YAML": (["--config=bins.yaml"], TOKENS, {"bins": 34}),
    "in YAML, as init_args": (["--config=init.yaml"], TOKENS, {"bins": 35}),
    "in YAML and here": (["--config=bins.yaml", "--model.policy.normalise=false"], TOKENS, {"bins": 34}),
    "here, after YAML": (["--config=bins.yaml", "--model.policy.bins=7"], TOKENS, {"bins": 7}),
    "another class later": (["--model.policy.bins=33", f"--model.policy={GAUSSIAN}"], GAUSSIAN, {"std_min": 0.1}),
    "another class in a later YAML": (["--config=bins.yaml", "--config=gauss.yaml"], GAUSSIAN, {"std_min": 0.2}),
    "another class before": (["--config=gauss.yaml", "--model.policy.std_max=0.3"], GAUSSIAN, {"std_max": 0.3}),
}


@pytest.mark.parametrize("name", POLICIES)
def test_the_default_policy_has_options_before_it_is_named(name: str, printed: Any) -> None:
    args, class_path, options = POLICIES[name]
    files = {"bins": "{model: {policy: {bins: 34}}}", "init": "{model: {policy: {init_args: {bins: 35}}}}"}
    policy = printed(*args, **files, gauss=GAUSS)["model"]["policy"]
    assert policy["class_path"] == class_path
    assert policy["init_args"].items() >= options.items()
    assert ("bins" in policy["init_args"]) is (class_path == TOKENS)  # options of one class are not those of another
    hidden = [16] if "network" in name else [256, 256]
    network = policy["init_args"]["network"]
    assert (network["class_path"], network["init_args"]["hidden"]) == ("gipo.networks.SeparateNetworks", hidden)


def test_a_class_in_anothers_place_keeps_the_options_that_both_have(printed: Any) -> None:
    found = printed("--config=metaworld_aspo.yaml", "--model.objective=PPOClip")["model"]["objective"]["init_args"]
    assert found["dual_clip"] == 3.0
    assert printed("--model.objective=PPOClip")["model"]["objective"]["init_args"] == found | {"dual_clip": None}
    gipo = "{model: {objective: {class_path: GIPO, init_args: {sigma: 0.5, sigma_neg_ratio: 0.7}}}}"
    found = printed("--config=x.yaml", "--model.objective=AgeAwareGIPO", x=gipo)["model"]["objective"]["init_args"]
    assert (found["sigma_neg_ratio"], "sigma" in found) == (0.7, False)


def test_no_policy_is_named_where_no_option_of_it_is(printed: Any) -> None:
    assert printed()["model"]["policy"] is None
    assert printed("--config=x.yaml", x="{model: {reuse: 2}}")["model"]["policy"] is None


OTHERS = {
    "model.objective.sigma_fresh": 0.2,
    "model.optimizer.weight_decay": 0.5,
    "data.estimator.lam": 0.7,
    "data.collector.ray.cpus": 2.0,
    "data.evaluation.episodes": 3,
    "data.ingest.bad_episodes": "skip",
    "data.behaviour.epochs": 4,
}


@pytest.mark.parametrize("how", ["arguments", "YAML", "YAML, then arguments"])
def test_every_other_option_that_a_class_stands_behind(how: str, printed: Any) -> None:
    nested: dict[str, Any] = {}
    for option, value in OTHERS.items():
        *groups, last = option.split(".")
        inner = nested
        for group in groups:
            inner = inner.setdefault(group, {})
        inner[last] = value if how == "YAML" else type(value)() if isinstance(value, str) else value
    args = [f"--{option}={value}" for option, value in OTHERS.items()]
    if how == "YAML":
        found = printed("--config=x.yaml", x=yaml.safe_dump(nested))
    elif how == "arguments":
        found = printed(*args)
    else:
        nested["data"]["ingest"]["bad_episodes"] = "refuse"
        found = printed("--config=x.yaml", *args, x=yaml.safe_dump(nested))
    for option, value in OTHERS.items():
        inner = found
        for name in option.split("."):
            inner = inner.get("init_args", inner)[name]
        assert inner == value, option
    assert found["model"]["objective"]["class_path"] == "gipo.adaptive.AgeAwareGIPO"
    assert found["model"]["objective"]["init_args"]["outward_only"] is True  # of our default, and kept
    assert found["model"]["optimizer"]["class_path"] == "torch.optim.AdamW"
    assert found["model"]["optimizer"]["init_args"]["fused"] is True  # of our default, and kept


def test_what_print_config_prints_is_a_configuration(printed: Any) -> None:
    first = printed("--model.policy.bins=33", "--model.objective=PPOClip", "--data.collector.num_envs=4")
    assert printed("--config=x.yaml", x=yaml.safe_dump(first)) == first


MISTAKES = {
    "--model.objective.sgima=.5": "--model.objective: AgeAwareGIPO has no option 'sgima'; the nearest: sigma_max, "
    "sigma_age, sigma_fresh (--model.objective.help=gipo.adaptive.AgeAwareGIPO)",
    "--model.policy.bns=3": "--model.policy: TokenPolicy has no option 'bns'; the nearest: bins "
    "(--model.policy.help=gipo.policies.TokenPolicy)",
    "--model.policy.network.hiden=[3]": "--model.policy.network: SeparateNetworks has no option 'hiden'; the nearest: "
    "hidden",
    "--trainer.callbacks+=EarlyStoping": "--trainer.callbacks=EarlyStoping: no class of that name is known; there are "
    "EarlyStopping, …",  # and what other tests have defined
    "--trainer.callbacks+=EarlyStopping": "--trainer.callbacks=EarlyStopping cannot be made without "
    "--trainer.callbacks.monitor=VALUE",
    "--trainer.logger=CSVLogger": "--trainer.logger=CSVLogger cannot be made without --trainer.logger.save_dir=VALUE",
    "--trainer.max_epoc=1": "there is no option --trainer.max_epoc; the nearest: --trainer.max_epochs, "
    "--trainer.max_steps, --trainer.min_epochs (gipo fit --help)",
    "--data.frames_per_itaration=1": "there is no option --data.frames_per_itaration; the nearest: "
    "--data.frames_per_iteration, --data.evaluation, --data.refresh_every (gipo fit --help)",
    "--model.objective.sigma_max=wide": "--model.objective.sigma_max=wide: expected a number",
    "--model.policy.network.hidden=wide": "--model.policy.network.hidden=wide: expected a list",
    "--data.behaviour.epoch=3": "--data.behaviour: BehaviourOptions has no option 'epoch'; the nearest: epochs, batch "
    "(--data.behaviour.help=datamodules.replay.behaviour.BehaviourOptions)",
    "--data.rounds=many": "--data.rounds=many: expected a whole number",
    "--data.rounds=": "--data.rounds=: expected a whole number",
    "--data.advantages=old": "--data.advantages=old: expected one of 'recompute', 'stored'",
    "--model.kl_exact=maybe": "--model.kl_exact=maybe: expected true or false",
    "--trainer.max_epochs=x": "--trainer.max_epochs=x: expected a whole number or null",
    "--model.objective=PPPO": "--model.objective=PPPO: no class of that name is known; there are DPPO, PPOClip, SAPO; "
    "one of yours is named by its path, module.NAME",
    "--model.objective=no.such.Class": "--model.objective=no.such.Class: No module named 'no'; there are ASPO, CISPO; "
    "one of yours is named by its path, module.NAME",
    "--model.objective=pathlib.Path": "--model.objective=pathlib.Path: it is no Objective; there are GIPO, NoClip, "
    "PPOClip; one of yours is named by its path, module.NAME",
    "--model.objective=gipo.objectives.Objective": "--model.objective=gipo.objectives.Objective: it is abstract, "
    "without __call__; there are NoClip; one of yours is named by its path, module.NAME",
    "--model.objective=gipo": "--model.objective=gipo: no class of that name is known; there are GIPO, GSPO, GMPO; one "
    "of yours is named by its path, module.NAME",
    "--model.kl_estimator=k2": "--model.kl_estimator=k2: no class of that name is known; give its path, module.NAME",
    "--data.seed=3": "--data.seed is always that of --seed_everything; give that one",
    "last.ckpt": "there is nothing that the argument 'last.ckpt' could be; options are --ckpt_path=last.ckpt",
    "blah": "there is nothing that the argument 'blah' could be; options are --NAME=VALUE",
}


@pytest.mark.parametrize("argument", MISTAKES)
def test_a_mistake_is_one_line_that_names_the_nearest(argument: str, refused: Any) -> None:
    said, expected = refused("fit", argument), MISTAKES[argument]
    assert said == expected or (expected.endswith("…") and said.startswith(expected[:-1]))


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--data.logs=x", "--data.behaviour.holdout=1"], "data.behaviour.holdout must lie in (0, 1), got 1.0"),
        (["--data.logs=x", "--data.behaviour.epochs=0"], "data.behaviour.epochs must be positive, got 0"),
        (
            ["--data.task=datamodules.vla.ToyVLA", "--data.task.chunk=0"],
            "datamodules.vla.ToyVLA cannot be made: data.task.chunk must be positive, got 0",
        ),
    ],
)
def test_a_value_that_is_not_allowed_where_there_may_be_none_is_named(
    arguments: list[str], reason: str, refused: Any
) -> None:
    assert refused("fit", "--trainer.precision=32-true", *arguments) == reason


def test_a_value_of_a_task_that_is_named_is_told_what_it_must_be(refused: Any) -> None:
    said = refused("fit", "--data.task=datamodules.vla.ToyVLA", "--data.task.shown=two_image")
    assert said == "--data.task.shown=two_image: expected one of 'state', 'image', 'two_images', 'two_sizes'"


def test_a_task_by_its_name_is_told_how_its_options_are_given(refused: Any, printed: Any) -> None:
    said = refused("fit", "--data.task.shown=image")
    assert said == (
        "--data.task.shown: the task reach-v3 has no options; a class can have some, --data.task=module.NAME"
    )
    said = refused("fit", "--data.task=camera:reach-v3", "--data.task.sise=32")
    given = ["--data.task=datamodules.envs.metaworld_camera.MetaWorldVLA", "--data.task.name=camera:reach-v3"]
    assert said == (
        f"--data.task.sise: a task by its name takes no options; with {' '.join(given)} there are chunk, size, "
        "max_steps"
    )
    assert printed(*given, "--data.task.size=32")["data"]["task"]["init_args"]["size"] == 32


def test_what_is_no_class_of_that_kind_is_told_what_is(refused: Any) -> None:
    said = refused("fit", "--model.policy=json.loads")
    assert said.startswith("--model.policy=json.loads: it is no Policy; there are TokenPolicy, ")


FILES = {
    b"data: {rouns: 3}": "there is no option --data.rouns; the nearest: --data.rounds, --data.logs, ",
    b"model: {policy: {bns: 3}}": "--model.policy: TokenPolicy has no option 'bns'; the nearest: bins ",
    b"data: {task: {size: 3}}": "--data.task has options only once its class is named: --data.task=CLASS; there are ",
    b"model: {value_scale: {x: 3}}": "--model.value_scale has options only once its class is named: ",
    b"trainer: {callbacks: [{x: 3}]}": "--trainer.callbacks has options only once its class is named: ",
    b"model: {optimizer: {x: 3}}": "--model.optimizer: AdamW has no option 'x'; the nearest: lr, betas, eps ",
    b"[1, 2]": "x.yaml is a list; a configuration is a mapping",
    b"": "x.yaml is empty; a configuration is a mapping",
    b"data:\n\trounds: 3": "x.yaml is not a readable YAML file, line 2: found character '\\t'",
    b"data: {rounds: 3}\ndata: {batch: 4}\n": "x.yaml is not a readable YAML file, line 2: 'data' is given twice",
    b"data: {rounds: \xe9}": "x.yaml is no UTF-8 text: ",
    b"model:": "x.yaml says nothing: there is nothing below 'model'",
    b"? [1, 2]\n: 3": "x.yaml is not a readable YAML file, line 1: a key must be a name",
    b"data_module: [1]": "data_module [1] is no data module; name OnlineDataModule or ",
    b"model: {objective: {class_path: GIPO, sigma: 1}}": "x.yaml: sigma of class_path 'GIPO' must stand in init_args",
    b"trainer: {callbacks: [{class_path: Timer, duration: 1}]}": "x.yaml: duration of class_path 'Timer' must ",
    # null where the option takes none
    b"model: {kl_coef: null}": "--model.kl_coef=None: expected a number",
    b"model: {normalise_advantages: null}": "--model.normalise_advantages=None: expected true or false",
    b"model: {objective: null}": "--model.objective=None: nothing can be made of it; there are GIPO, ",
    b"data: {advantages: null}": "--data.advantages=None: expected one of 'recompute', 'stored'",
    b"data: {batch: null}": "--data.batch=None: expected a whole number",
    b"data: {collector: {num_envs: null}}": "--data.collector.num_envs=None: expected a whole number",
    b"data: {task: null}": "--data.task=None: expected text",
}


@pytest.mark.parametrize("content", FILES)
def test_a_mistake_in_a_configuration(content: bytes, refused: Any) -> None:
    assert refused("fit", "--config=x.yaml", x=content).startswith(FILES[content])


GROUPS = {
    b"model: [{kl_coef: 1}]": "--model=[{'kl_coef': 1}]: expected a mapping of options",
    b"data: 3": "--data=3: expected a mapping of options",
    b"trainer: [1]": "--trainer=[1]: expected a mapping of options",
    b"data: {collector: [1, 2]}": "--data.collector=[1, 2]: expected a mapping of options",
    b"checkpoint: x": "--checkpoint=x: expected a mapping of options, or a file of them",
}


@pytest.mark.parametrize("content", GROUPS)
def test_what_stands_in_place_of_a_mapping_is_not_passed_over(content: bytes, refused: Any) -> None:
    """Also where the command gives an option of that mapping, which would take its place."""
    options = ["--model.reuse=2", "--data.collector.num_envs=2", "--trainer.max_epochs=1", "--checkpoint.every=1"]
    assert refused("fit", "--config=x.yaml", *options, x=content) == GROUPS[content]
    assert refused("fit", "--data.collector=[1]").startswith("--data.collector=[1]: expected a mapping of options, or")


def test_a_heading_with_nothing_below_it_changes_nothing(printed: Any) -> None:
    given = "model:\ntrainer:\ndata:\n  rounds: 3\n  collector:\n    num_envs: 4\n"
    found = printed("--config=x.yaml", "--config=y.yaml", x=given, y="data:\n  collector:\nmodel:\n  reuse: 2\n")
    assert found["data"]["collector"]["num_envs"] == 4
    assert (found["data"]["rounds"], found["model"]["reuse"]) == (3, 2)
    assert found["trainer"] == printed()["trainer"]


@pytest.mark.parametrize(
    ("args", "line"),
    [
        ([], "no command is named; there are fit, validate, test, estimate, lineage (gipo --help)"),
        (["fti"], "there is no command 'fti'; the nearest: fit"),
        (["--config=x.yaml"], "no command is named; there are fit, validate, test, estimate, lineage (gipo --help)"),
        (["fit", "--config="], "--config (empty) cannot be read: Is a directory"),
        (["fit", "--config", "."], "--config . cannot be read: Is a directory"),
        (["fit", "--config"], "argument -c/--config: expected one argument"),
    ],
)
def test_no_command_and_no_configuration(args: list[str], line: str, refused: Any) -> None:
    assert refused(*args) == line


def test_help_of_a_class_that_is_not_named_is_that_of_the_default(capsys: Capture) -> None:
    with pytest.raises(SystemExit, match="0"):
        main(["fit", "--model.policy.help"])
    assert "--model.policy.bins" in capsys.readouterr().out


def test_an_option_that_must_be_given_is_named_as_it_is_typed(refused: Any) -> None:
    assert refused("fit", "--config=post_train.yaml") == "--data.logs must be given (gipo fit --help)"
