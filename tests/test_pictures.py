"""Seeing a model: the pictures, their numbers against direct computations, and ``lit-gen sample`` on a small RBM and others."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
import yaml
from PIL import Image
from pytorch_lightning import Callback, Trainer
from pytorch_lightning.loggers import CSVLogger
from torch import Tensor

from lit_gen.callbacks import Completion, FreeEnergyGap, Pictures, views
from lit_gen.callbacks.completion import baselines, hidden_error
from lit_gen.cli.main import main
from lit_gen.core.checkpoint import load_checkpoint
from lit_gen.core.errors import UsageError
from lit_gen.core.images import ImageSpec
from lit_gen.core.module import GenerativeModule
from lit_gen.data import Digits
from lit_gen.energy import RBM, Partition
from lit_gen.vae import InpaintingVAE, MLPDecoder, MLPEncoder
from tests.conftest import ROOT, differing_weights, only_run, small

SPEC = ImageSpec((1, 8, 8), 10, (0.0, 1.0), binary=True)
SIDE = 8 * 4  # digits are enlarged to 32 pixels


def digits(**options: Any) -> Digits:
    return Digits(**{"binarize": "threshold", "batch_size": 32, "eval_batch_size": 30, "subset_size": 96, **options})


def rbm(**options: Any) -> RBM:
    optimizer = partial(torch.optim.SGD, lr=0.1)
    small = {"hidden_units": 12, "sample_steps": 5, "posterior_steps": 4, "partition": Partition(steps=20, chains=8)}
    return RBM(**{**small, "optimizer": optimizer, **options})


def trainer(folder: Path, *callbacks: Callback, **options: Any) -> Trainer:
    return Trainer(
        **{
            "default_root_dir": folder, "callbacks": list(callbacks), "accelerator": "cpu", "devices": 1, "logger": False,
            "enable_progress_bar": False, "enable_model_summary": False, "enable_checkpointing": False,
            "max_epochs": 1, "num_sanity_val_steps": 0, **options,
        }
    )  # fmt: skip


class Answers(GenerativeModule):
    """Completes images in a way that a test chooses, and learns nothing."""

    def __init__(self, answer: Tensor | None = None) -> None:
        super().__init__()
        self.answer = answer
        self.asked: list[tuple[Tensor, Tensor]] = []

    def build_networks(self, spec: ImageSpec) -> None:
        self.unused = torch.nn.Linear(1, 1)

    def complete(self, image: Tensor, mask: Tensor, generator: torch.Generator | None = None) -> Tensor:
        self.asked.append((image, mask))
        if self.answer is None:
            return image
        return torch.where(mask.bool(), self.answer.to(image), image)

    def energy(self, image: Tensor) -> Tensor:
        return image.sum((1, 2, 3))

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        return self.unused(torch.ones(1)).sum()

    def validation_step(self, batch: Any, batch_idx: int) -> None: ...

    def test_step(self, batch: Any, batch_idx: int) -> None: ...

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.0)


class Silent(Answers):
    """Does not complete images."""

    complete = None


# ---------------------------------------------------------------- drawing


def test_filters_are_drawn_symmetric_around_grey_each_by_its_own_largest() -> None:
    filters = torch.tensor([[0.0, 1e-3, -1e-3, 5e-4], [0.0, -8.0, 2.0, 4.0]]).view(1, 2, 1, 2, 2)
    picture = views.View(filters, ("filter",), None, columns=2).draw()
    assert picture.shape == (3, 2 + 32 + 2, 2 + 2 * (32 + 2))
    for k, expected in enumerate([[0.5, 1.0, 0.0, 0.75], [0.5, 0.0, 0.625, 0.75]]):
        drawn = picture[0, 2:34, 2 + 34 * k : 34 + 34 * k][8::16, 8::16].flatten()
        torch.testing.assert_close(drawn, torch.tensor(expected))
    assert torch.isfinite(views.View(torch.zeros(1, 3, 1, 4, 4), ("filter",), None).draw()).all()


def test_rows_stay_together_in_blocks_of_sixteen_columns() -> None:
    images = torch.zeros(3, 21, 1, 32, 32)
    images[1, 20] = 1.0  # the second row of the fifth column of the second block
    picture = views.View(images, ("a", "b", "c"), (0.0, 1.0)).draw()
    block = 2 + 3 * 34
    assert picture.shape == (3, 2 * block + 8, 2 + 16 * 34)
    (y, x) = (picture[0] == 1).nonzero()[0].tolist()
    assert (y, x) == (block + 8 + 2 + 34, 2 + 4 * 34)


def test_each_half_is_hidden() -> None:
    for half, shown in {"lower": np.s_[:2], "upper": np.s_[2:], "left": np.s_[:, 3:], "right": np.s_[:, :3]}.items():
        mask = views.half_hidden((4, 6), half)[0, 0]
        assert mask.sum() == 12
        assert mask[shown].sum() == 0


# ---------------------------------------------------------------- pictures while training


def test_pictures_of_all_kinds_are_written_at_their_epochs_and_logged(tmp_path: Path, monkeypatch) -> None:
    logged: list[str] = []
    monkeypatch.setattr("lit_gen.callbacks.pictures.log_image", lambda trainer, key, *rest: logged.append(key))
    callback = Pictures(every_n_epochs=2, n=5, steps=(1, 3))
    trainer(tmp_path, callback, max_epochs=3).fit(rbm(), datamodule=digits())
    written = {path.name: Image.open(path).size for path in (tmp_path / "samples").iterdir()}
    row = 2 + 5 * (SIDE + 2)
    sizes = {
        "filters": (2 + 2 * (SIDE + 2), 2 + 3 * (SIDE + 2)),  # 5 of them, about a square
        "trajectory": (row, 2 + 2 * (SIDE + 2)),
        "reconstruct": (row, 2 + 2 * (SIDE + 2)),
        "complete": (row, 2 + 3 * (SIDE + 2)),
        "denoise": (row, 2 + 3 * (SIDE + 2)),
    }
    assert written == {f"{kind}-step-{step:06d}.png": size for kind, size in sizes.items() for step in (6, 9)}
    assert logged == 2 * list(sizes)


def test_a_model_is_only_asked_for_what_it_offers(tmp_path: Path) -> None:
    trainer(tmp_path, Pictures(n=4)).fit(Answers(), datamodule=digits(val_size=0))
    assert [path.name for path in (tmp_path / "samples").iterdir()] == ["complete-step-000003.png"]
    with pytest.raises(UsageError, match="Answers cannot denoise images"):
        trainer(tmp_path, Pictures(kinds=["denoise"])).fit(Answers(), datamodule=digits())


def test_pictures_are_the_same_again_and_of_validation_images(tmp_path: Path) -> None:
    model, data, callback = rbm(), digits(), Pictures(n=5)
    worker = trainer(tmp_path, callback)
    worker.fit(model, datamodule=data)
    first = torch.cat([batch.image for batch in data.val_dataloader()])[:5]
    for kind in ("complete", "denoise", "reconstruct", "trajectory"):
        once, again = callback.view(kind, worker, model), callback.view(kind, worker, model)
        assert torch.equal(once.images, again.images)
        assert kind == "trajectory" or torch.equal(once.images[0], first)
    image, noisy, _ = callback.view("denoise", worker, model).images
    assert 0 < (image != noisy).float().mean() < 0.3


def test_training_is_not_disturbed(tmp_path: Path) -> None:
    def weights(*callbacks: Callback) -> dict[str, Tensor]:
        model = rbm()
        trainer(tmp_path, *callbacks, max_epochs=2).fit(model, datamodule=digits(binarize="dynamic"))
        return model.state_dict()

    alone = weights()
    watched = weights(Pictures(every_n_epochs=1, n=4), FreeEnergyGap(n=20), Completion(n=10, every_n_epochs=1))
    assert differing_weights(alone, watched) == []


@pytest.mark.parametrize(
    ("make", "value"),
    [
        (lambda: Pictures(kinds=["dream"]), "dream"),
        (lambda: Pictures(every_n_epochs=-1), "-1"),
        (lambda: Pictures(flip=0.5), "0.5"),
        (lambda: Pictures(steps=(10, 1)), "10,1"),
        (lambda: Pictures(steps=()), "increasing"),
        (lambda: Pictures(hide="middle"), "middle"),
        (lambda: FreeEnergyGap(every_n_epochs=0), "0"),
        (lambda: FreeEnergyGap(n=1), "1"),
        (lambda: Completion(n=0), "0"),
        (lambda: Completion(hide="all"), "all"),
        (lambda: Completion(draws=0), "0"),
    ],
)
def test_bad_arguments_are_named(make, value: str) -> None:
    with pytest.raises(UsageError, match=value):
        make()


# ---------------------------------------------------------------- free energy gap


@pytest.mark.parametrize("binarize", ["none", "dynamic"])
def test_the_gap_is_that_of_the_free_energies(binarize: str, tmp_path: Path) -> None:
    model, data = rbm(), digits(binarize=binarize, subset_size=None)
    worker = trainer(tmp_path, FreeEnergyGap(n=70))
    worker.fit(model, datamodule=data)
    with torch.no_grad():
        val = torch.cat([model.free_energy(batch.image) for batch in data.val_dataloader()])[:70].double()
        train = torch.cat([model.free_energy(b.image) for b in data.eval_batches("train", 70)]).double()
    assert len(train) == 70
    assert float(worker.callback_metrics["val/free_energy_gap"]) == pytest.approx(float(val.mean() - train.mean()))
    error = float(((val.var() + train.var()) / 70).sqrt())
    assert float(worker.callback_metrics["val/free_energy_gap_stderr"]) == pytest.approx(error)
    (again,) = worker.validate(model, datamodule=data, verbose=False)
    assert again["val/free_energy_gap"] == pytest.approx(float(val.mean() - train.mean()))


def test_the_gap_uses_an_energy_and_as_many_images_of_both_kinds(tmp_path: Path) -> None:
    data = digits(val_size=30, subset_size=50)
    worker = trainer(tmp_path, FreeEnergyGap())
    worker.fit(Answers(), datamodule=data)
    images = [torch.cat([b.image for b in data.eval_batches(split, 30)]).double() for split in ("val", "train")]
    expected = (images[0].sum() - images[1].sum()) / 30
    assert float(worker.callback_metrics["val/free_energy_gap"]) == pytest.approx(float(expected))


def test_the_gap_grows_when_a_model_overfits(tmp_path: Path) -> None:
    class Gaps(Callback):
        def __init__(self) -> None:
            self.seen: list[float] = []

        def on_validation_end(self, trainer: Trainer, pl_module: GenerativeModule) -> None:
            self.seen.append(float(trainer.callback_metrics["val/free_energy_gap"]))

    gaps = Gaps()
    data = digits(subset_size=30, batch_size=30)
    model = rbm(hidden_units=60, optimizer=partial(torch.optim.SGD, lr=0.1, momentum=0.9))
    trainer(tmp_path, FreeEnergyGap(), gaps, max_epochs=300, check_val_every_n_epoch=100).fit(model, datamodule=data)
    assert gaps.seen[0] < gaps.seen[1] < gaps.seen[2]
    assert gaps.seen[2] > 10


def test_the_gap_needs_an_energy_and_validation_images(tmp_path: Path) -> None:
    vae = InpaintingVAE(latent_dim=2, encoder=MLPEncoder, decoder=MLPDecoder, optimizer=torch.optim.Adam)
    with pytest.raises(UsageError, match="InpaintingVAE has no free energy"):
        trainer(tmp_path, FreeEnergyGap()).fit(vae, datamodule=digits())
    with pytest.raises(UsageError, match="val_size"):
        trainer(tmp_path, FreeEnergyGap()).fit(rbm(), datamodule=digits(val_size=0))


# ---------------------------------------------------------------- completion


def measured(folder: Path, model: GenerativeModule, data: Digits, callback: Completion) -> dict[str, float]:
    if model.spec is None:
        model.build(data.spec)
    return trainer(folder, callback).test(model, datamodule=data, verbose=False)[0]


def all_images(data: Digits, split: str) -> Tensor:
    return torch.cat([batch.image for batch in data.eval_batches(split)])


@pytest.mark.parametrize("hide", ["lower", "left"])
@pytest.mark.parametrize("options", [{}, {"binarize": "dynamic"}, {"binarize": "none", "value_range": "symmetric"}])
def test_completion_errors_are_those_by_hand(hide: str, options: dict[str, Any], tmp_path: Path) -> None:
    data, n = digits(**options), 50
    train, image = all_images(data, "train"), all_images(data, "test")[:n]
    rows = np.s_[:, :, 4:, :] if hide == "lower" else np.s_[:, :, :, :4]
    known = np.s_[:, :, :4, :] if hide == "lower" else np.s_[:, :, :, 4:]
    span = 2.0 if options.get("value_range") else 1.0

    model, callback = Answers(train.mean(0)), Completion(n, hide, draws=1)
    metrics = measured(tmp_path, model, data, callback)
    by_mean = ((train.mean(0, keepdim=True)[rows] - image[rows]) / span).square().flatten(1).mean(1)
    assert metrics["test/completion_error_mean_image"] == pytest.approx(float(by_mean.mean()), rel=1e-4)
    assert metrics["test/completion_error"] == pytest.approx(metrics["test/completion_error_mean_image"], rel=1e-5)
    entry = callback.record["test/completion_error"]
    assert entry["stderr"] == pytest.approx(float(by_mean.std() / n**0.5), rel=1e-3)
    assert (entry["n"], entry["hidden"], entry["n_train"]) == (n, hide, 96)
    assert entry["of"] == ("images" if options.get("binarize") == "none" else "binarised images")

    distance = (image[known].flatten(1)[:, None] - train[known].flatten(1)).square().sum(-1)
    nearest = train[distance.argmin(1)]
    by_nearest = ((nearest[rows] - image[rows]) / span).square().mean()
    assert metrics["test/completion_error_nearest"] == pytest.approx(float(by_nearest), rel=0.02)  # ties

    seen, mask = (torch.cat(parts) for parts in zip(*model.asked))
    assert torch.equal(seen, image)
    assert mask.shape == (n, 1, 8, 8)
    assert (mask[rows] == 1).all()
    assert (mask[known] == 0).all()
    picture = Image.open(tmp_path / "samples" / "completion.png")
    assert picture.size == (2 + 16 * (SIDE + 2), 2 + 3 * (SIDE + 2))


def test_a_perfect_completion_has_no_error(tmp_path: Path) -> None:
    metrics = measured(tmp_path, Answers(), digits(), Completion(40))
    assert metrics["test/completion_error"] == 0.0
    assert metrics["test/completion_error_nearest"] > 0.0


class Guesses(Answers):
    """Fills hidden pixels with zeros and ones in turn."""

    def complete(self, image: Tensor, mask: Tensor, generator: torch.Generator | None = None) -> Tensor:
        self.asked.append((image, mask))
        return torch.where(mask.bool(), torch.full_like(image, 1 - len(self.asked) % 2), image)


def test_several_completions_are_averaged(tmp_path: Path) -> None:
    """Of binary pixels, half zeros and half ones are off by a quarter everywhere."""
    data = digits(binarize="dynamic")
    metrics = measured(tmp_path, Guesses(), data, Completion(40, draws=4))
    assert metrics["test/completion_error_averaged"] == pytest.approx(0.25)
    zeros = all_images(data, "test")[:40][:, :, 4:].mean()
    assert metrics["test/completion_error"] == pytest.approx(float(zeros), rel=1e-5)  # of the first


def test_the_nearest_training_image_is_found_in_any_batch() -> None:
    train = torch.rand(20, 2, 4, 4)
    hidden = views.half_hidden((4, 4), "upper")
    image = torch.where(hidden.bool(), torch.rand(20, 2, 4, 4), train)[torch.randperm(20)]
    batches = [type("Batch", (), {"image": part}) for part in train.split(7)]
    mean, nearest = baselines(batches, image, hidden)
    torch.testing.assert_close(mean, train.mean(0))
    known = (1 - hidden).expand_as(image).bool()
    assert torch.equal(nearest[known], image[known])
    assert hidden_error(image + 0.5 * (1 - hidden), image, hidden).abs().max() == 0
    torch.testing.assert_close(hidden_error(image + 0.5, image, hidden), torch.full((20,), 0.25))


def test_completion_while_training_and_without_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    worker = trainer(None, Completion(20, every_n_epochs=2), max_epochs=2)
    worker.fit(rbm(), datamodule=digits())
    assert 0 < float(worker.callback_metrics["val/completion_error"]) < 1
    worker.test(worker.lightning_module, datamodule=digits(), verbose=False)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(UsageError, match="Silent cannot complete"):
        trainer(tmp_path, Completion()).test(Silent(), datamodule=digits(), verbose=False)


def test_a_vae_and_an_rbm_complete_better_than_the_nearest_image(tmp_path: Path) -> None:
    networks = {"encoder": partial(MLPEncoder, hidden=[32]), "decoder": partial(MLPDecoder, hidden=[32])}
    vae = InpaintingVAE(latent_dim=4, optimizer=partial(torch.optim.Adam, lr=3e-3), nll_samples=10, **networks)
    machine = rbm(hidden_units=40, posterior_steps=60)
    for model in (vae, machine):
        data, callback = digits(binarize="dynamic", subset_size=None, batch_size=100), Completion(100)
        trainer(tmp_path, max_epochs=20, limit_val_batches=0).fit(model, datamodule=data)
        metrics = measured(tmp_path, model, data, callback)
        assert metrics["test/completion_error"] < 1.1 * metrics["test/completion_error_mean_image"]
        assert metrics["test/completion_error"] < metrics["test/completion_error_nearest"]
        assert callback.record["test/completion_error"]["value"] == pytest.approx(metrics["test/completion_error"])


def values_of_this_process(index: int, folder: str, world: int) -> None:
    """Trains and tests in one of several gloo processes and keeps what was logged."""
    if world > 1:
        torch.set_num_threads(1)
        os.environ["LOCAL_RANK"] = str(index)  # for Lightning, the sign that it was launched
        dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=index, world_size=world)
    data = digits(batch_size=96 // world, binarize="dynamic")
    callbacks = Pictures(n=4, steps=(1, 2)), FreeEnergyGap(n=40), Completion(70, every_n_epochs=1)
    options = {"strategy": "ddp", "devices": world, "use_distributed_sampler": False} if world > 1 else {}
    model, worker = rbm(), trainer(Path(folder), *callbacks, **options)
    worker.fit(model, datamodule=data)
    logged = {name: float(value) for name, value in worker.callback_metrics.items()}
    logged |= worker.test(model, datamodule=data, verbose=False)[0]
    torch.save(logged, Path(folder) / f"logged-{world}-{index}.pt")
    if world > 1:
        dist.destroy_process_group()


def test_two_processes_log_what_one_does(tmp_path: Path) -> None:
    values_of_this_process(0, str(tmp_path), 1)
    mp.spawn(values_of_this_process, (str(tmp_path), 2), nprocs=2)
    one, first, second = (torch.load(tmp_path / f"logged-{name}.pt") for name in ("1-0", "2-0", "2-1"))
    names = [name for name in one if "gap" in name or "completion" in name]
    assert len(names) == 10
    for name in names:
        assert one[name] == pytest.approx(first[name], rel=1e-4)
        assert first[name] == second[name]


def test_pictures_go_to_the_loggers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    logged = []
    monkeypatch.setattr("lit_gen.callbacks.completion.log_image", lambda trainer, key, *rest: logged.append(key))
    worker = trainer(tmp_path, Completion(20), logger=CSVLogger(tmp_path))
    worker.test(rbm().build(SPEC), datamodule=digits(), verbose=False)
    assert logged == ["completion"]


# ---------------------------------------------------------------- lit-gen sample


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Finished runs of a small RBM, with all callbacks, and of two models that offer other views."""
    found = {}
    for name in ("energy/rbm_digits", "energy/boltzmann_machine_digits", "vae/vae_digits"):
        folder = tmp_path_factory.mktemp(name.replace("/", "_"))
        settings = small(ROOT / f"configs/{name}.yaml")
        command = "fit"
        if "rbm" in name:
            command = "run"
            settings["model"]["init_args"]["partition"]["init_args"]["steps"] = 20
            settings["trainer"]["callbacks"] = [
                {"class_path": "lit_gen.callbacks.Pictures", "init_args": {"n": 6, "steps": [1, 4]}},
                {"class_path": "lit_gen.callbacks.FreeEnergyGap"},
                {"class_path": "lit_gen.callbacks.Completion", "init_args": {"n": 50}},
            ]
        file = folder / "experiment.yaml"
        file.write_text(yaml.safe_dump(settings))
        assert main([command, "--config", str(file), "--runs_dir", str(folder / "runs")]) == 0
        for variable in ("PL_GLOBAL_SEED", "LIT_GEN_RUN_ID"):
            os.environ.pop(variable, None)
        found[name.split("/")[1].removesuffix("_digits")] = only_run(folder)
    return found


def sampled(run: Path, folder: Path, *words: str) -> tuple[dict[str, np.ndarray], Image.Image]:
    """The array and the picture that the same command writes."""
    for suffix in ("npz", "png"):
        assert main(["sample", str(run), *words, "--out", str(folder / f"out.{suffix}")]) == 0
    with np.load(folder / "out.npz") as stored:
        return dict(stored), Image.open(folder / "out.png")


def refused(capsys: pytest.CaptureFixture, run: Path, *words: str) -> str:
    assert main(["sample", str(run), *words]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    return line


def test_a_run_keeps_its_pictures_and_how_completion_was_measured(runs: dict[str, Path]) -> None:
    run = runs["rbm"]
    kinds = {path.name.split("-")[0] for path in (run / "samples").iterdir()}
    assert kinds >= {*views.LACKS, "completion.png"}
    record = yaml.safe_load((run / "result.json").read_text())
    entry = record["estimators"]["test/completion_error"]
    assert entry["value"] == pytest.approx(record["metrics"]["test/completion_error"])
    assert entry["n"] == 50
    assert "val/free_energy_gap" in (run / "metrics.csv").read_text().splitlines()[0]


def test_filters_of_a_run(runs: dict[str, Path], tmp_path: Path, capsys) -> None:
    array, picture = sampled(runs["rbm"], tmp_path, "--filters", "--n", "9")
    weights = load_checkpoint(runs["rbm"] / "checkpoints" / "last.ckpt")["state_dict"]["machine.weight"]
    assert array["images"].shape == (9, 1, 28, 28)
    np.testing.assert_array_equal(array["images"].reshape(9, -1), weights.T[:9].numpy())
    low, high = array["value_range"]
    assert -low == high == abs(array["images"]).max()
    assert picture.size[0] == picture.size[1]
    assert "--filters: a VAE has no filters" in refused(capsys, runs["vae"], "--filters")


def test_chains_of_a_run_over_time(runs: dict[str, Path], tmp_path: Path, capsys) -> None:
    for name in ("rbm", "boltzmann_machine"):
        array, _ = sampled(runs[name], tmp_path, "--trajectory", "--steps", "1,2,5", "--n", "20")
        alias, _ = sampled(runs[name], tmp_path, "--over-time", "--steps", "1,2,5", "--n", "20")
        np.testing.assert_array_equal(array["images"], alias["images"])
        assert array["rows"].tolist() == ["1 steps", "2 steps", "5 steps"]
        first, second, last = array["images"].reshape(3, 20, -1)
        assert (first != second).any()
        assert (second != last).any()
    # the last row is what a sample of that length is
    samples, _ = sampled(runs["rbm"], tmp_path, "--chain-steps", "5", "--n", "20")
    rbm_chains, _ = sampled(runs["rbm"], tmp_path, "--trajectory", "--steps", "5", "--n", "20")
    np.testing.assert_array_equal(samples["images"], rbm_chains["images"])
    assert "--trajectory: a VAE has no chains" in refused(capsys, runs["vae"], "--trajectory")
    assert "--steps belongs to --trajectory" in refused(capsys, runs["rbm"], "--steps", "3")
    assert "increasing" in refused(capsys, runs["rbm"], "--trajectory", "--steps", "3,3")
    assert "--steps" in refused(capsys, runs["rbm"], "--trajectory", "--steps", "3,x")


def test_denoised_and_completed_test_images_of_a_run(runs: dict[str, Path], tmp_path: Path, capsys) -> None:
    for name in ("rbm", "boltzmann_machine"):
        array, picture = sampled(runs[name], tmp_path, "--denoise", "0.2", "--n", "20")
        image, noisy, denoised = array["images"].reshape(3, 20, -1)
        assert array["rows"].tolist() == ["image", "noisy", "denoised"]
        assert 0.1 < (image != noisy).mean() < 0.3
        assert 0 <= denoised.min() < denoised.max() <= 1
        assert picture.size[1] > 6 * SIDE  # two blocks of three rows
    array, _ = sampled(runs["rbm"], tmp_path, "--complete", "--hide", "right", "--n", "4", "--chain-steps", "3")
    image, seen, completed = array["images"].reshape(3, 4, 28, 28)
    np.testing.assert_array_equal(image[..., :14], completed[..., :14])
    assert (seen[..., 14:] == 0.5).all()
    other, _ = sampled(runs["rbm"], tmp_path, "--complete", "--hide", "right", "--n", "4", "--chain-steps", "9")
    assert (other["images"] != array["images"]).any()
    assert "--denoise: a VAE cannot denoise images" in refused(capsys, runs["vae"], "--denoise", "0.1")
    assert "--denoise = 0.5" in refused(capsys, runs["rbm"], "--denoise", "0.5")
    assert "--denoise" in refused(capsys, runs["rbm"], "--denoise", "0.1", "--filters")


def test_chain_steps_where_there_is_no_chain(runs: dict[str, Path], capsys) -> None:
    assert "a VAE runs no chain" in refused(capsys, runs["vae"], "--chain-steps", "3")
    assert "no chain is run" in refused(capsys, runs["rbm"], "--filters", "--chain-steps", "3")
    assert "use --steps" in refused(capsys, runs["rbm"], "--trajectory", "--chain-steps", "3")
    assert "--chain-steps 0" in refused(capsys, runs["rbm"], "--chain-steps", "0")
