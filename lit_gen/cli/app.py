"""The LightningCLI of lit_gen: what can be configured, and how a Trainer with its run directory is made of it."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from pytorch_lightning import LightningDataModule, Trainer
from pytorch_lightning.cli import LightningArgumentParser, LightningCLI
from pytorch_lightning.loggers import Logger
from pytorch_lightning.plugins import CheckpointIO
from pytorch_lightning.plugins.environments import (
    ClusterEnvironment,
    LightningEnvironment,
    SLURMEnvironment,
    TorchElasticEnvironment,
)
from pytorch_lightning.utilities import rank_zero_only

from lit_gen.callbacks import SampleGrid, Throughput, progress_callback
from lit_gen.cli.configuration import refuse_changes, refused_in_one_line
from lit_gen.cli.messages import import_families, one_line
from lit_gen.core.checkpoint import AtomicCheckpointIO, RunCheckpoint
from lit_gen.core.errors import UsageError
from lit_gen.core.launch import (
    check_world_size,
    fill_trainer_arguments,
    launch_environment,
    renew_rendezvous,
    shared_run_id,
)
from lit_gen.core.loggers import MetricsCSV, tensorboard_logger, wandb_logger
from lit_gen.core.module import GenerativeModule
from lit_gen.core.profiler import NoProfiler
from lit_gen.core.run_dir import RunDir, experiment_name, git_state, write_atomically
from lit_gen.core.stopping import own_signals
from lit_gen.core.strategy import ManualDDPStrategy

DEFAULT_SEED = 1
TRAINING_COMMANDS = ("run", "fit")
NOT_IN_CONFIG = ("config", "resume", "debug", "ckpt_path", "out")


@dataclass
class LoggerOptions:
    """Where metrics go besides metrics.csv.

    Args:
        wandb: log to W&B; offline, without a question, where there is no API key.
        wandb_project: W&B project.
        upload_best: upload the best checkpoint as a W&B artifact at the end of the run.
        tensorboard: log to TensorBoard, into the run directory.
    """

    wandb: bool = True
    wandb_project: str = "lit_gen"
    upload_best: bool = True
    tensorboard: bool = False


class LitGenCLI(LightningCLI):
    """Parses a configuration and makes model, data and Trainer of it; the commands in ``run.py`` use them.

    Args:
        command: run, fit, validate, test or predict.
        args: the words after the command.
        resumed: the run directory to continue, where there is one.

    Raises:
        UsageError: the configuration is wrong.
    """

    def __init__(self, command: str, args: list[str], resumed: RunDir | None = None) -> None:
        self.command, self.resumed, self.continued = command, resumed, False
        self.launch = launch_environment()
        self.run_dir: RunDir | None = None
        self.throughput = Throughput()
        super().__init__(
            model_class=GenerativeModule,
            datamodule_class=LightningDataModule,
            subclass_mode_model=True,
            subclass_mode_data=True,
            save_config_callback=None,
            trainer_defaults={
                "num_sanity_val_steps": 0,
                "use_distributed_sampler": False,
                "enable_model_summary": False,
            },
            seed_everything_default=DEFAULT_SEED,
            auto_configure_optimizers=False,
            parser_kwargs={"prog": f"lit-gen {command}", "exit_on_error": False, "allow_abbrev": False},
            run=False,
            args=args,
        )

    # ---------------------------------------------------------------- parsing

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
        if self.command not in TRAINING_COMMANDS:
            help_text = "the checkpoint to evaluate, or a run directory (its best checkpoint is used)"
            parser.add_argument("--ckpt_path", type=str, required=True, help=help_text)
        if self.command == "predict":
            parser.add_argument("--out", type=str, default="predictions.npz", help="the file to write")
        if self.command == "run":
            parser.add_argument("--resume", type=str, help="continue the run in this directory; no --config then")
        parser.add_argument("--name", type=str | None, default=None, help="experiment name; default: the config's name")
        parser.add_argument("--runs_dir", type=str, default="runs", help="where run directories are made")
        parser.add_class_arguments(LoggerOptions, "loggers")
        parser.add_lightning_class_args(RunCheckpoint, "checkpoint")
        parser.add_lightning_class_args(SampleGrid, "sample_grid")

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        if any(word.endswith("help") for word in args):
            import_families()  # so that the help lists the models and data sets
        try:
            self.config = parser.parse_args(args)
        except Exception as error:
            raise UsageError(one_line(error, parser, args)) from error

    def _parse_ckpt_path(self) -> None:
        """A checkpoint never overrides the configuration silently: ``run.py`` compares the two."""

    def complete_config(self) -> dict[str, Any]:
        """The whole configuration as plain data, as it goes to config.yaml and to W&B."""
        dumped = yaml.safe_load(self.parser.dump(self.config, skip_none=False))
        return {key: value for key, value in dumped.items() if key not in NOT_IN_CONFIG}

    # ---------------------------------------------------------------- instantiation

    def before_instantiate_classes(self) -> None:
        git_state()  # read once, here: before anything is trained
        if self.command not in TRAINING_COMMANDS:
            return
        if self.resumed:
            self.run_dir = self.resumed
            refuse_changes(yaml.safe_load(self.resumed.config.read_text()), self.complete_config())
            return
        self.run_dir = RunDir(Path(self.config.runs_dir) / self._name() / shared_run_id(self.launch))
        if self.run_dir.config.is_file():
            self._continue()

    def _continue(self) -> None:
        """The launcher has started this job again: the run that it began goes on, with its own configuration.

        Raises:
            UsageError: the directory was made by another job.
        """
        if self.launch.restarts:
            self.resumed, self.continued = self.run_dir, True
            self.config = self.parser.parse_args(["--config", str(self.run_dir.config)])
            self._set_seed()
        elif self.launch.rank == 0:
            raise UsageError(
                f"{self.run_dir.path} exists and was made by another run: give --name or --runs_dir, "
                "or continue it with --resume"
            )

    def _name(self) -> str:
        """The experiment's name, which from now on is part of the configuration."""
        configs = [str(path) for path in self.config.config or []]
        self.config.name = experiment_name(self.config.name, configs, self.config.model.class_path)
        return self.config.name

    def instantiate_classes(self) -> None:
        with refused_in_one_line():
            super().instantiate_classes()

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        config = {**self._get(self.config_init, "trainer", default={}), **kwargs}
        devices, nodes = fill_trainer_arguments(self.launch, config["devices"], config["num_nodes"])
        config.update(devices=devices, num_nodes=nodes)
        config["strategy"] = self._strategy(config["strategy"], devices, nodes)
        config["plugins"] = self._plugins(config["plugins"])
        config["profiler"] = config["profiler"] or NoProfiler()
        config["callbacks"] = [*self._as_list(config["callbacks"]), *self._callbacks()]
        config["logger"] = self._loggers(config["logger"])
        if self.run_dir:
            config["default_root_dir"] = str(self.run_dir.path)
        if config["enable_progress_bar"] is not False:
            config["callbacks"].append(progress_callback())
            config["enable_progress_bar"] = sys.stdout.isatty()
        trainer = Trainer(**config)
        own_signals(trainer)
        check_world_size(self.launch, trainer.world_size)
        return trainer

    def _strategy(self, strategy: Any, devices: Any, nodes: int) -> Any:
        several = nodes > 1 or (isinstance(devices, int) and devices > 1)
        if strategy == "auto" and several:
            strategy = "ddp"
        if strategy == "ddp" and not self.model.automatic_optimization:
            return ManualDDPStrategy()
        return strategy

    def _plugins(self, plugins: Any) -> list:
        plugins = self._as_list(plugins)
        if not any(isinstance(plugin, CheckpointIO) for plugin in plugins):
            plugins.append(AtomicCheckpointIO())
        if not any(isinstance(plugin, ClusterEnvironment) for plugin in plugins):
            plugins.append(self._cluster_environment())
        return plugins

    def _cluster_environment(self) -> ClusterEnvironment:
        """Said outright: Lightning's own guess takes every process inside a SLURM allocation for one that srun started."""
        if self.launch.launcher == "torchrun":
            renew_rendezvous(self.launch)
            return TorchElasticEnvironment()
        if self.launch.launcher == "slurm":
            # that of the step, where it has fewer than the job
            os.environ["SLURM_NTASKS_PER_NODE"] = str(self.launch.devices)
            return SLURMEnvironment(auto_requeue=False)
        return LightningEnvironment()

    def _callbacks(self) -> list:
        if self.command not in TRAINING_COMMANDS:
            return []
        self.checkpoint = self._get(self.config_init, "checkpoint")
        return [self.throughput, self._get(self.config_init, "sample_grid"), self.checkpoint]

    def _loggers(self, logger: Any) -> list[Logger] | bool:
        if self.run_dir is None or logger is False:
            return False
        self._write_run_dir()
        options = self.config.loggers
        self.csv = MetricsCSV(self.run_dir.metrics)
        loggers: list[Logger] = [self.csv]
        if options.wandb:
            config = self.complete_config()
            loggers.append(wandb_logger(self.run_dir, options.wandb_project, config, upload_best=options.upload_best))
        if options.tensorboard:
            loggers.append(tensorboard_logger(self.run_dir))
        return loggers + [given for given in self._as_list(logger) if isinstance(given, Logger)]

    @rank_zero_only
    def _write_run_dir(self) -> None:
        self.run_dir.create()
        write_atomically(self.run_dir.config, yaml.safe_dump(self.complete_config(), sort_keys=False))

    @staticmethod
    def _as_list(value: Any) -> list:
        if value is None:
            return []
        return list(value) if isinstance(value, (list, tuple)) else [value]


class ConfigurationOnly(LitGenCLI):
    """Parses the words of ``lit-gen run`` and makes no Trainer and no run directory of them."""

    def before_instantiate_classes(self) -> None:
        self._name()

    def instantiate_classes(self) -> None:
        """Nothing is made."""

    def _set_seed(self) -> None:
        """The caller's random numbers stay as they are."""


def checked_config(words: list[str], instantiate: bool = True) -> dict[str, Any]:
    """The complete configuration of a run that is not started here.

    Args:
        words: what would stand after ``lit-gen run``.
        instantiate: also makes the model and the data, so that values which their classes refuse are refused now.

    Raises:
        UsageError: the configuration is wrong.
    """
    cli = ConfigurationOnly("run", words)
    if instantiate:
        with refused_in_one_line():
            cli.parser.instantiate_classes(cli.config)
    return cli.complete_config()
