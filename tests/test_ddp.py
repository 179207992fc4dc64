"""Data parallel training: it works for every config, and two processes compute what one does with the doubled batch."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from tests.conftest import CONFIGS, ROOT, lit_gen, only_run, process_environment, small

GENERATOR_WITHOUT_BATCH_NORM = {
    "class_path": "lit_gen.gan.DCGANGenerator",
    "init_args": {"width": 8, "normalisation": "none"},
}
PAIRS = {
    "vae": (ROOT / "configs/vae/vae_mnist.yaml", {}),
    "rbm_cd1": (ROOT / "configs/energy/rbm_cd1_mnist.yaml", {"hidden_units": 12}),
    "rbm_pcd": (ROOT / "configs/energy/rbm_pcd_mnist.yaml", {"hidden_units": 12, "centred": True}),
    "lstm_language_model": (ROOT / "configs/text/lstm_numbers.yaml", {}),
    "seq2seq": (ROOT / "configs/text/transformer_numbers.yaml", {}),
    # batch norm is over the rows of one process, and would make a difference
    "wgan_gp": (ROOT / "configs/gan/wgan_gp_mnist.yaml", {"generator": GENERATOR_WITHOUT_BATCH_NORM}),
}


def without_dropout(part: Any) -> None:
    """Takes dropout out of a config, in place: its masks are drawn by each process for itself."""
    if isinstance(part, dict):
        part |= {key: 0.0 for key in part if "dropout" in key}
        for value in part.values():
            without_dropout(value)


def test_every_config_trains_in_two_processes(tmp_path: Path) -> None:
    words = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(ROOT / "tests/ddp_worker.py")]
    done = subprocess.run(
        [sys.executable, *words, str(tmp_path)],
        cwd=tmp_path, env=process_environment(), capture_output=True, text=True, timeout=900,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    lines = re.findall(r"(\w+/\w+) world=(\d) steps=(\d+) spread=(\S+)", done.stdout)
    assert [name for name, *_ in lines] == [f"{config.parent.name}/{config.stem}" for config in CONFIGS]
    for name, world, steps, spread in lines:
        assert (world, float(spread)) == ("2", 0.0), name
        assert int(steps) in (2, 4, 6, 8), name  # two for each stage


@pytest.mark.parametrize("name", PAIRS)
def test_two_processes_equal_one_with_the_doubled_batch(name: str, tmp_path: Path) -> None:
    source, changes = PAIRS[name]
    weights, metrics, examples = [], [], []
    for processes, batch_size in ((1, 32), (2, 16)):
        experiment = small(source, max_epochs=1, limit_train_batches=3, limit_val_batches=1)
        experiment["trainer"] |= {"devices": processes, "strategy": "ddp" if processes == 2 else "auto"}
        for option in ("batch_size", "batch_tokens"):
            if option in experiment["data"]["init_args"]:
                experiment["data"]["init_args"][option] = batch_size * (1 if option == "batch_size" else 16)
        if source.parent.name != "text":
            experiment["data"]["init_args"] |= {"image_size": 16, "eval_batch_size": 50}
        experiment["model"]["init_args"] |= changes
        without_dropout(experiment["model"])
        folder = tmp_path / str(processes)
        folder.mkdir()
        file = folder / f"{name}.yaml"
        file.write_text(yaml.safe_dump(experiment))
        lit_gen("run", "--config", file, cwd=folder)
        run = only_run(folder)
        checkpoint = torch.load(run / "checkpoints" / "last.ckpt", weights_only=False)
        assert checkpoint["global_step"] == 3
        carried = {f"carried {i}": tensor for i, tensor in enumerate(checkpoint.get("carried_state") or ())}
        weights.append(checkpoint["state_dict"] | carried)
        tested = yaml.safe_load((run / "result.json").read_text())["metrics"]
        if (run / "examples.json").exists():  # of each test example, in the order of the split
            examples.append(json.loads((run / "examples.json").read_text())["test/nll"])
        metrics.append({key: value for key, value in tested.items() if not key.endswith("_seconds")})
    assert weights[0].keys() == weights[1].keys()
    for key, value in weights[0].items():
        torch.testing.assert_close(
            weights[1][key], value, atol=1e-5, rtol=0, msg=lambda text, key=key: f"{key}: {text}"
        )
    assert metrics[0] == pytest.approx(metrics[1], rel=1e-3)
    if examples:
        assert examples[0] == pytest.approx(examples[1], rel=1e-3)
