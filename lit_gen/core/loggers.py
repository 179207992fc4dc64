"""Loggers of a run: metrics.csv always, W&B (offline without a key), TensorBoard on request. None ever prompts or hangs."""

from __future__ import annotations

import csv
import netrc
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

from pytorch_lightning import Trainer
from pytorch_lightning.loggers import Logger, TensorBoardLogger, WandbLogger
from pytorch_lightning.utilities import rank_zero_only
from torch import Tensor

from lit_gen.core.console import say, warn
from lit_gen.core.errors import UsageError
from lit_gen.core.run_dir import RunDir, git_state, write_atomically


class MetricsCSV(Logger):
    """``metrics.csv`` of a run: one row for each call of the Trainer, columns added as they appear, flushed at once.

    A resumed run first cuts the file back to the rows that existed at its checkpoint, so none is missing or doubled.

    Args:
        path: the file; it is continued where it exists.
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path
        self.columns: list[str] = ["step"]
        self.rows = 0
        if path.exists():
            with open(path, newline="", encoding="utf-8") as file:
                reader = csv.reader(file)
                self.columns = next(reader, ["step"])
                self.rows = sum(1 for _ in reader)

    @property
    def name(self) -> str:
        return "csv"

    @property
    def version(self) -> str:
        return self.path.parent.name

    def log_hyperparams(self, *args: Any, **kwargs: Any) -> None:
        """The configuration is in config.yaml."""

    @rank_zero_only
    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        new = [key for key in metrics if key not in self.columns]
        if new:
            self._rewrite(self._read(), self.columns + sorted(new))
        with open(self.path, "a", newline="", encoding="utf-8") as file:
            csv.DictWriter(file, self.columns).writerow({"step": step, **metrics})
        self.rows += 1

    @rank_zero_only
    def truncate(self, rows: int) -> None:
        """Keeps the first rows only."""
        if rows < self.rows:
            self._rewrite(self._read()[:rows], self.columns)
            self.rows = rows

    def _read(self) -> list[dict[str, str]]:
        if not self.path.exists():
            return []
        with open(self.path, newline="", encoding="utf-8") as file:
            return list(csv.DictReader(file))

    def _rewrite(self, rows: list[dict[str, str]], columns: list[str]) -> None:
        lines = [",".join(columns)]
        lines += [",".join(row.get(column) or "" for column in columns) for row in rows]
        write_atomically(self.path, "\n".join(lines) + "\n")
        self.columns = columns


def has_wandb_key() -> bool:
    """Whether W&B could log in without asking: a key in the environment or in the netrc file."""
    if os.environ.get("WANDB_API_KEY"):
        return True
    host = os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai").split("//")[-1].split("/")[0]
    try:
        return netrc.netrc(os.environ.get("NETRC")).authenticators(host) is not None
    except (OSError, netrc.NetrcParseError):
        return False


class RunWandbLogger(WandbLogger):
    """W&B, whose service is a process of its own that a signal to the whole job ends: the run goes on without it.

    Args:
        upload_best: whether the best checkpoint is uploaded as an artifact at the end.
        options: of Lightning's ``WandbLogger``.
    """

    def __init__(self, *, upload_best: bool, **options: Any) -> None:
        super().__init__(**options)
        self._wandb_init.pop("anonymous", None)  # wandb warns of it, given or not
        self.upload_best, self.is_lost = upload_best, False

    @rank_zero_only
    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        with self.may_be_lost() as there:
            if there:
                super().log_metrics(metrics, step)

    @rank_zero_only
    def log_best(self, path: Path) -> None:
        """Uploads a checkpoint as an artifact of type "model", where that was asked for."""
        with self.may_be_lost() as there:
            if there and self.upload_best:
                import wandb

                artifact = wandb.Artifact(f"model-{self.experiment.id}", type="model")
                artifact.add_file(str(path))
                self.experiment.log_artifact(artifact, aliases=["best"])

    @rank_zero_only
    def finish(self) -> None:
        """Ends the W&B run of a process that is about to leave, so that all of it is on the disk."""
        with self.may_be_lost() as there:
            if there:
                self.experiment.finish()

    @contextmanager
    def may_be_lost(self) -> Iterator[bool]:
        """Gives whether W&B is there; an error of its connection within says that it no longer is."""
        try:
            yield not self.is_lost
        except OSError as error:
            self.is_lost = True
            warn(f"W&B is lost ({type(error).__name__}); the run goes on, and metrics.csv has everything")
            sys.unraisablehook = lambda _: None  # its own exit handler finds nobody and would print a traceback


def wandb_logger(run: RunDir, project: str, config: dict[str, Any], *, upload_best: bool) -> RunWandbLogger:
    """W&B logging of a run, with the full config (class paths, seed, commit); a resumed run continues the same W&B run.

    Args:
        run: the run directory; W&B's files go to its ``wandb/``.
        project: W&B project.
        config: the complete configuration.
        upload_best: whether the best checkpoint is uploaded as an artifact at the end.
    """
    import wandb

    offline = os.environ.get("WANDB_MODE") == "offline" or not has_wandb_key()
    if offline:
        say(f"W&B: no API key, logging offline; upload later with: wandb sync {run.path}/wandb/offline-run-*")
    return RunWandbLogger(
        upload_best=upload_best,
        project=project,
        name=f"{run.experiment}/{run.run_id}",
        id=run.run_id,
        save_dir=str(run.path),
        offline=offline,
        resume="allow",
        config={**config, "git": git_state()},
        settings=wandb.Settings(silent=True, console="off", save_code=False),
    )


def upload_best_model(trainer: Trainer, path: Path) -> None:
    """Logs the best checkpoint as a W&B artifact (on rank zero, where W&B is on)."""
    for logger in wandb_loggers(trainer):
        logger.log_best(path)


def finish_loggers(trainer: Trainer) -> None:
    """Ends what would otherwise end with the process."""
    for logger in wandb_loggers(trainer):
        logger.finish()


def wandb_loggers(trainer: Trainer) -> list[RunWandbLogger]:
    """Those of the run's loggers that log to W&B."""
    return [logger for logger in trainer.loggers if isinstance(logger, RunWandbLogger)]


def log_media(logger: WandbLogger, key: str, make: Callable[[], Any], step: int) -> None:
    """Shows at W&B what ``make`` makes: a picture or a table."""
    with logger.may_be_lost() if isinstance(logger, RunWandbLogger) else nullcontext(True) as there:
        if there:
            # no step: W&B's own counter would put it on another step than the metrics
            logger.experiment.log({key: make(), "trainer/global_step": step})


def tensorboard_logger(run: RunDir) -> TensorBoardLogger:
    """TensorBoard logging of a run, into its ``tensorboard/``.

    Raises:
        UsageError: TensorBoard is not installed.
    """
    try:
        return TensorBoardLogger(save_dir=str(run.path), name="tensorboard", version="")
    except ModuleNotFoundError as error:
        raise UsageError(
            "loggers.tensorboard = true, but tensorboard is not installed: pip install tensorboard"
        ) from error


def log_image(trainer: Trainer, key: str, image: Tensor, path: Path) -> None:
    """Shows a picture in every logger that takes one.

    Args:
        trainer: its loggers are used.
        key: name of the picture, e.g. ``samples``.
        image: float32 ``[C, H, W]`` in [0, 1].
        path: where the picture lies as a PNG.
    """

    def wandb_image() -> Any:
        import wandb

        return wandb.Image(str(path))

    for logger in trainer.loggers:
        if isinstance(logger, WandbLogger):
            log_media(logger, key, wandb_image, trainer.global_step)
        elif isinstance(logger, TensorBoardLogger):
            logger.experiment.add_image(key, image, trainer.global_step)


def log_table(trainer: Trainer, key: str, columns: list[str], rows: list[list[Any]]) -> None:
    """Shows a table in every logger that takes one: a W&B table, Markdown in TensorBoard.

    Args:
        trainer: its loggers are used.
        key: name of the table, e.g. ``translations``.
        columns: names of the columns.
        rows: a value for each column.
    """

    def wandb_table() -> Any:
        import wandb

        return wandb.Table(columns=columns, data=rows)

    for logger in trainer.loggers:
        if isinstance(logger, WandbLogger):
            log_media(logger, key, wandb_table, trainer.global_step)
        elif isinstance(logger, TensorBoardLogger):
            logger.experiment.add_text(key, markdown_table(columns, rows), trainer.global_step)


def markdown_table(columns: list[str], rows: list[list[Any]]) -> str:
    """A table in Markdown; what would end a cell is escaped."""
    cells = [columns, ["---"] * len(columns), *rows]
    return "\n".join(
        "| " + " | ".join(str(cell).replace("|", "\\|").replace("\n", "<br>") for cell in row) + " |" for row in cells
    )
