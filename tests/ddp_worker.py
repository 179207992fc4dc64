"""Run by torchrun: every shipped config, made small, trained for two updates in this world; one line for each."""

from __future__ import annotations

import sys
from pathlib import Path

import torch
import torch.distributed as dist
import yaml

from lit_gen.cli.app import LitGenCLI
from lit_gen.cli.run import quiet_lightning
from tests.conftest import CONFIGS, small


def spread(model: torch.nn.Module) -> float:
    """Largest difference of any parameter between two processes; of any buffer where there are no parameters."""
    worst = 0.0
    for tensor in list(model.parameters()) or list(model.buffers()):
        copies = [torch.empty_like(tensor) for _ in range(dist.get_world_size())]
        dist.all_gather(copies, tensor.detach())
        worst = max(worst, *(float((copy - copies[0]).abs().max()) for copy in copies))
    return worst


def main(folder: Path) -> None:
    quiet_lightning()
    for config in CONFIGS:
        experiment = small(config)
        experiment["trainer"].pop("devices")
        file = folder / f"{config.parent.name}-{config.name}-{dist.get_rank() if dist.is_initialized() else 'x'}.yaml"
        file.write_text(yaml.safe_dump(experiment))
        words = ["--config", str(file), "--runs_dir", str(folder / "runs"), "--name", config.stem]
        cli = LitGenCLI("fit", words)
        cli.trainer.fit(cli.model, datamodule=cli.datamodule)
        if cli.trainer.is_global_zero:
            world, steps = cli.trainer.world_size, cli.trainer.global_step
        difference = spread(cli.model)
        if cli.trainer.is_global_zero:
            print(f"{config.parent.name}/{config.stem} world={world} steps={steps} spread={difference}", flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
