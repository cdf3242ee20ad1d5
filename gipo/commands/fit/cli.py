"""`gipo fit | validate | test`: Lightning's command line over GIPOModule and a data module."""

import logging
import os
import signal
import sys
import warnings
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.utilities.rank_zero import _get_rank
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.utilities.exceptions import MisconfigurationException, SIGTERMException
from lightning.pytorch.utilities.rank_zero import rank_zero_only

import gipo.adaptive
import gipo.baselines  # noqa: F401 - both so that --model.objective finds its classes by their bare names
from datamodules.online import OnlineDataModule
from gipo.callbacks.checkpoint_io import AtomicCheckpointIO
from gipo.callbacks.kept_config import KeepConfig
from gipo.callbacks.last_checkpoint import BestCheckpoint, LastCheckpoint
from gipo.callbacks.loggers import CSV, TensorBoard
from gipo.callbacks.reporting import CollectionMetrics, Curves, RunProgress
from gipo.callbacks.run_folder import CHECKPOINTS, RunFolder, beginning_of, choose, folder_of, with_absolute_paths
from gipo.checkpoints import load_checkpoint
from gipo.commands.fit.arguments import data_module, with_implied_classes, with_shipped_configs
from gipo.commands.fit.checks import (
    bound_as_the_policy,
    learnable,
    less_memory,
    notes_on_learning,
    refuse_a_later_iteration,
    refuse_another_order,
    refuse_another_task,
    report_staleness,
    settle_simulator,
)
from gipo.commands.fit.parser import FitParser, not_made
from gipo.commands.fit.precision import LOWERED, precision_of
from gipo.commands.fit.summary import episode_summary, run_summary
from gipo.commands.fit.trainer_options import as_list, refuse_what_is_not_honoured, seed_from
from gipo.commands.fit.user_callbacks import at_fault, refuse_with_others, spare_the_run
from gipo.common.checkpoint_head import CheckpointHead, read_head
from gipo.common.errors import UserError
from gipo.common.signals import Ended, listener, name
from gipo.distributed import ranks
from gipo.distributed.failure import EXIT_LOST, EndTogether, report_lost
from gipo.distributed.strategies import chosen
from gipo.learning.micro_batches import refuse_single
from gipo.module import GIPOModule

FASTER = "updates multiply matrices in bfloat16, which this processor does faster (trainer.precision=bf16-mixed)"
EVALUATING = {"model", "dataloaders", "datamodule", "weights_only"}  # arguments that are not the user's to give
SUBCOMMANDS = {
    "fit": {"model", "train_dataloaders", "val_dataloaders", "datamodule", "weights_only"},
    "validate": EVALUATING,
    "test": EVALUATING,
}


class GipoCLI(LightningCLI):
    """Adds run folders and shipped configs to LightningCLI, and checks what it can before a folder is touched."""

    def __init__(self, resources: ExitStack, *classes: Any, args: list[str], **options: Any):
        self._resources = resources  # what is to be released, whatever ends the command
        self._asked = next(argument for argument in args if argument in SUBCOMMANDS)
        super().__init__(*classes, args=args, **options)  # type: ignore[misc] # no more than two of them

    def subcommands(self) -> dict[str, set[str]]:  # type: ignore[override]
        """The subcommand that is asked for, alone, as options take a while to parse; without what is ours to give."""
        return {self._asked: SUBCOMMANDS[self._asked]}

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """How often to save, and one seed for everything."""
        parser.add_lightning_class_args(LastCheckpoint, "checkpoint")
        parser.add_argument(
            "--data_module",
            default=OnlineDataModule.__name__,
            help="OnlineDataModule collects, OfflineDataModule learns from logs; or the path of a class of yours. "
            "Its options are those of --data.",
        )
        # `true` draws one, later; as a bool it would be refused before.
        parser.link_arguments("seed_everything", "data.seed", compute_fn=int)

    def setup_parser(self, *args: Any, **kwargs: Any) -> None:
        """Our own summary instead of Lightning's table, unless --verbose asks for it."""
        super().setup_parser(*args, **kwargs)
        if self._asked != "fit":
            self._subcommand_parsers[self._asked].set_defaults(verbose=False)

    def _parse_ckpt_path(self) -> None:
        """Settle seed and simulator, where Lightning would read the checkpoint, and fail on a damaged one."""
        config = self.config[self.config.subcommand]
        config.seed_everything = seed_from(config.seed_everything, first=_speaks())
        config.data.seed = config.seed_everything
        self._head = None if config.ckpt_path is None else read_head(config.ckpt_path)
        settle_simulator(config.data, self._head)

    def before_instantiate_classes(self) -> None:
        """Choose the run folder; refuse an occupied one before anything is built."""
        config = self.config[self.subcommand]
        if self.subcommand != "fit":
            if config.ckpt_path is None:
                raise UserError(f"gipo {self.subcommand} needs --ckpt_path, a checkpoint to evaluate")
            config.trainer.default_root_dir = str(folder_of(config.ckpt_path) or Path.cwd())
            return
        with_absolute_paths(config)
        if config.trainer.precision is None and not config.trainer.plugins:  # which may be one
            had = None if self._head is None else self._head.precision
            config.trainer.precision = precision_of(config.trainer, had, _is_alone(config.trainer))
            if config.trainer.precision == LOWERED and not had and _speaks():
                print(f"gipo: note: {FASTER}", file=sys.stderr)
        configs = [str(each) for each in config.config or ()]
        place = choose(config.trainer.default_root_dir, config.ckpt_path, configs)
        if not _speaks():  # the first learner's is the run's, and nobody else writes to it
            config.trainer.default_root_dir = str(place or Path("runs").absolute())
            return
        folder = RunFolder(place) if place else RunFolder.numbered(Path("runs").absolute(), beginning_of(config))
        self._resources.callback(folder.release)
        config.trainer.default_root_dir = str(folder.path)

    def instantiate_classes(self) -> None:
        """Build what the options name; a class that needs what is not installed is told by its name."""
        try:
            super().instantiate_classes()
        except ValueError as error:
            if (line := not_made(str(error))) is None:
                raise
            raise UserError(line) from error

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """A trainer whose epochs are the data module's iterations and whose files share one folder."""
        trainer = self.config_init[self.subcommand].trainer
        refuse_what_is_not_honoured(trainer)
        if trainer.enable_progress_bar is False:
            callbacks = self.trainer_defaults["callbacks"]
            self.trainer_defaults["callbacks"] = [one for one in callbacks if not isinstance(one, RunProgress)]
        if trainer.max_epochs is None:
            kwargs["max_epochs"] = self.datamodule.iterations
        kwargs |= chosen(trainer.strategy)
        kwargs["plugins"] = [*as_list(trainer.plugins), AtomicCheckpointIO()]
        folder = trainer.default_root_dir
        if self.subcommand != "fit":
            kwargs["logger"] = False
        elif trainer.logger in (None, True):
            kwargs["logger"] = [TensorBoard(folder, "tensorboard"), CSV(folder, "csv")]
        try:
            instance = super().instantiate_trainer(**kwargs)
        except (MisconfigurationException, ValueError, TypeError, RuntimeError, ImportError) as error:
            raise UserError(f"the trainer cannot have these options: {' '.join(str(error).split())}") from error
        except KeyError as error:  # of a plugin for a cluster
            raise UserError(
                f"a plugin of the trainer needs {error} in the environment; is this its cluster?"
            ) from error
        for callback in instance.checkpoint_callbacks:
            if isinstance(callback, ModelCheckpoint):
                callback.dirpath = callback.dirpath or str(Path(folder) / CHECKPOINTS)
        for callback in as_list(trainer.callbacks):
            spare_the_run(callback)
        return instance

    def _run_subcommand(self, subcommand: str) -> None:
        """Run a subcommand; a library or a simulator that calls `sys.exit` is an error here, whatever it says."""
        try:
            super()._run_subcommand(subcommand)
        except SIGTERMException as error:  # how Lightning ends after an iteration in which a signal was heard
            ended = Ended(listener.heard or signal.SIGTERM)
            ended.told = True
            raise ended from error
        except Ended:
            raise
        except SystemExit as error:
            raise UserError(f"something that the run called ended it by sys.exit({error.code!r})") from error
        except Exception as error:
            if isinstance(error, MemoryError) or "out of memory" in str(error) or "allocate memory" in str(error):
                raise UserError(f"memory ran out; {less_memory(self.config[subcommand])}") from error
            if (line := at_fault(error, self.config_init[subcommand].trainer)) is not None:
                raise UserError(line) from error
            raise

    def before_fit(self) -> None:
        """Build what may be refused, and hold it against the checkpoint, before the run folder is touched."""
        path = self.config[self.subcommand].ckpt_path
        checkpoint = None if path is None else load_checkpoint(path)
        refuse_single(self.datamodule.batch, self.model.normalise_advantages)
        bound_as_the_policy(self.datamodule, path or self.model.init_from)
        spaces, privileged = self.datamodule.spaces, self.datamodule.privileged_size
        refuse_another_order(self.datamodule, path or self.model.init_from)
        self.model.policy = self.model.build_policy(spaces, checkpoint, privileged)
        refuse_with_others(self.trainer)
        self.datamodule.trainer = self.trainer  # which knows how many learners there are
        self.datamodule.check_learners()
        if self.trainer.limit_val_batches:
            self.datamodule.check_evaluation()
        self.model.check_behaviour(self.datamodule.store_params)
        if checkpoint is not None:
            state = checkpoint.get(type(self.datamodule).__qualname__, {})
            self.datamodule.check(state)
            self.model.check_optimizers(checkpoint)
            refuse_a_later_iteration(state["iteration"], self.trainer.max_epochs)
            if self.datamodule.logs is not None:
                learnable(self.model, self.datamodule)
        elif self.datamodule.logs is not None:
            folder, device = Path(self.trainer.default_root_dir), self.trainer.strategy.root_device
            report_staleness(self.model, self.datamodule, folder, _speaks(), device)
        notes = self.datamodule.notes(self.config[self.subcommand].checkpoint.every)
        notes += notes_on_learning(self.model, self.datamodule, self.trainer.max_epochs, checkpoint is not None)
        for note in notes if _speaks() else []:
            print(f"gipo: note: {note}", file=sys.stderr)

    def before_validate(self) -> None:
        """Build the policy and hold it and its task against the checkpoint."""
        self.datamodule.check_evaluation()
        path = self.config[self.subcommand].ckpt_path
        checkpoint = load_checkpoint(path)
        bound_as_the_policy(self.datamodule, path)
        refuse_another_task(CheckpointHead.of(checkpoint).task, self.datamodule.evaluated_task.name)
        spaces = self.datamodule.spaces
        refuse_another_order(self.datamodule, path)
        self.model.policy = self.model.build_policy(spaces, checkpoint)

    before_test = before_validate

    @rank_zero_only
    def after_fit(self) -> None:
        """One line that says what ended the run and where everything is."""
        print(run_summary(self.trainer, self.datamodule))

    @rank_zero_only
    def after_test(self) -> None:
        """The test figures as one readable line."""
        print(episode_summary(self.trainer.callback_metrics, "test", self.datamodule.evaluation.test_episodes))

    @rank_zero_only
    def after_validate(self) -> None:
        """The validation figures as one readable line."""
        print(episode_summary(self.trainer.callback_metrics, "val", self.datamodule.evaluation.episodes))


def main(given: list[str]) -> None:
    """Train or evaluate. What is wrong is raised; exits where a learner was lost, or a signal ended the run."""
    # One thread is faster than two for networks this small, and ten times faster on a contended machine.
    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(1)
    # Their advice is for users of the libraries; ours must stay readable beside the progress bar.
    warnings.filterwarnings("ignore", module="lightning|torch|torchrl|tensordict|jsonargparse")
    for library in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(library).setLevel(logging.WARNING)
    logging.getLogger("lightning.pytorch.profilers").setLevel(logging.INFO)  # what it measured, where one is asked for
    # Says which learner died, before Lightning ends the others.
    logging.getLogger("lightning.fabric.strategies.launchers.subprocess_script").setLevel(logging.INFO)
    try:
        with listener, ExitStack() as resources:
            _run(with_implied_classes(with_shipped_configs(given)), resources)
    except RuntimeError as error:
        if not ranks.is_loss_of_a_rank(error):
            raise
        report_lost(error)
        sys.exit(EXIT_LOST)
    except Ended as ended:
        if not ended.told:
            print(f"gipo: ended by {name(ended.number)}", file=sys.stderr)
        raise


def _run(given: list[str], resources: ExitStack) -> None:
    GipoCLI(
        resources,
        GIPOModule,
        data_module(given),
        save_config_callback=KeepConfig,
        seed_everything_default=22,
        auto_configure_optimizers=False,
        trainer_defaults={
            "accelerator": "cpu",
            "check_val_every_n_epoch": 10,
            "num_sanity_val_steps": 0,
            "log_every_n_steps": 1,
            "enable_model_summary": False,
            "callbacks": [EndTogether(), BestCheckpoint(), CollectionMetrics(), Curves(), RunProgress()],
        },
        parser_class=FitParser,
        parser_kwargs={"prog": "gipo"},
        args=given,
    )


def _is_alone(trainer: Any) -> bool:
    """Whether a run with these options of the Trainer has one learner, also where another program starts them."""
    return _get_rank() is None and trainer.num_nodes == 1 and str(trainer.devices) in ("auto", "1")


def _speaks() -> bool:
    """Whether this process speaks for the run: the first of its learners, also before they have met."""
    return not _get_rank()
