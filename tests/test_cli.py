"""The command line: help without torch, one line for each mistake, exit codes, sampling."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from lit_gen.cli.main import COMMANDS, main
from tests.conftest import ROOT, lit_gen, only_run, process_environment, small

DIGITS_GAN = ROOT / "configs/gan/dcgan_digits.yaml"
DIGITS_VAE = ROOT / "configs/vae/vae_digits.yaml"


def one_line(capsys: pytest.CaptureFixture, argv: list[str], code: int = 2) -> str:
    """Runs a command in this process and returns the single line that it wrote to standard error."""
    assert main([str(word) for word in argv]) == code
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("lit-gen: error:")]
    assert len(lines) == 1
    assert "Traceback" not in lines[0]
    return lines[0]


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A small GAN config in a folder of its own."""
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "gan.yaml"
    file.write_text(yaml.safe_dump(small(DIGITS_GAN)))
    return file


@pytest.fixture(scope="session")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One finished run of each family."""
    found = {}
    sources = {
        "gan": DIGITS_GAN,
        "vae": DIGITS_VAE,
        "cgan": ROOT / "configs/gan/cdcgan_mnist.yaml",
        "inpainting": ROOT / "configs/vae/inpainting_vae_mnist.yaml",
    }
    for name, source in sources.items():
        folder = tmp_path_factory.mktemp(name)
        file = folder / f"{name}.yaml"
        file.write_text(yaml.safe_dump(small(source)))
        lit_gen("run", "--config", file, cwd=folder)
        found[name] = only_run(folder)
    return found


# ---------------------------------------------------------------- help and dispatch


def test_help_does_not_import_torch() -> None:
    script = "import sys; from lit_gen.cli.main import main; main(['--help']); sys.exit('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=process_environment())
    assert done.returncode == 0
    assert all(command in done.stdout for command in COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(command: str, tmp_path: Path) -> None:
    assert "--help" in lit_gen(command, "--help", cwd=tmp_path).stdout


def test_the_three_entry_points_are_the_same(tmp_path: Path) -> None:
    as_module = lit_gen("--help", cwd=tmp_path).stdout
    as_file = subprocess.run(
        [sys.executable, str(ROOT / "train.py"), "--help"], capture_output=True, text=True, env=process_environment()
    ).stdout
    assert as_module == as_file != ""


def test_unknown_command(capsys: pytest.CaptureFixture) -> None:
    assert "did you mean run?" in one_line(capsys, ["rum"])


# ---------------------------------------------------------------- mistakes in a configuration

MISTAKES = {
    "unknown option": (["--trainer.max_epoch", "3"], ["--trainer.max_epoch", "did you mean --trainer.max_epochs"]),
    "unknown key": (["--model.init_args.latent", "3"], ["model.init_args.latent", "did you mean latent_dim"]),
    "unknown nested key": (
        ["--model.init_args.generator.init_args.widht", "3"],
        ["model.init_args.generator.init_args.widht", "did you mean width"],
    ),
    "wrong type": (["--model.init_args.latent_dim", "many"], ["model.init_args.latent_dim = many", "int"]),
    "wrong type in the trainer": (["--trainer.max_epochs", "many"], ["trainer.max_epochs = many", "int"]),
    "wrong type in an optimizer": (["--model.init_args.optimizer_g.init_args.lr", "fast"], ["lr = fast", "number"]),
    "missing file": (["--config", "nowhere.yaml"], ["nowhere.yaml", "does not exist"]),
    "no such model": (["--model", "lit_gen.gan.GANN"], ["lit_gen.gan.GANN", "does not exist", "lit_gen.gan.GAN"]),
    "no such data": (["--data", "lit_gen.data.MNISTT"], ["lit_gen.data.MNISTT", "lit_gen.data.MNIST"]),
    "not a model": (["--model", "torch.nn.Linear"], ["torch.nn.Linear", "GenerativeModule"]),
    "value out of range": (["--model.init_args.latent_dim", "0"], ["latent_dim = 0", "accepted"]),
    "label out of range": (["--data.init_args.labels", "[3, 12]"], ["12", "0 to 9"]),
    "bad range": (["--data.init_args.value_range", "unit"], ["[0.0, 1.0]", "[-1.0, 1.0]"]),
    "bad mode": (["--checkpoint.mode", "least"], ["least", "min, max"]),
    "bad monitor": (["--checkpoint.monitor", "val/fidd"], ["val/fidd", "logged"]),
    "bad name": (["--name", "a/b"], ["a/b", "accepted"]),
    "no such accelerator": (["--trainer.accelerator", "abacus"], ["abacus", "cpu"]),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_line_that_names_the_value(mistake: str, config: Path, capsys: pytest.CaptureFixture) -> None:
    words, expected = MISTAKES[mistake]
    line = one_line(capsys, ["run", "--config", config, *words])
    for part in expected:
        assert part in line


def test_data_root_without_data(config: Path, capsys: pytest.CaptureFixture) -> None:
    settings = yaml.safe_load(config.read_text())
    settings["data"] = {
        "class_path": "lit_gen.data.MNIST",
        "init_args": {"root": "empty", "download": False, "image_size": 16, "value_range": "symmetric"},
    }
    config.write_text(yaml.safe_dump(settings))
    line = one_line(capsys, ["run", "--config", config])
    assert "'empty'" in line
    assert "train-images-idx3-ubyte" in line


def test_broken_yaml_names_the_file(config: Path, capsys: pytest.CaptureFixture) -> None:
    config.write_text("model: [1")
    assert "gan.yaml is not valid YAML" in one_line(capsys, ["run", "--config", config])


def test_nothing_given(capsys: pytest.CaptureFixture) -> None:
    assert "--config" in one_line(capsys, ["run"])


def test_debug_shows_the_traceback(capsys: pytest.CaptureFixture) -> None:
    assert main(["rum", "--debug"]) == 2
    assert "Traceback" in capsys.readouterr().err


def test_resume_needs_a_run(capsys: pytest.CaptureFixture, tmp_path: Path) -> None:
    assert str(tmp_path) in one_line(capsys, ["run", "--resume", tmp_path])
    assert "--resume needs a value" in one_line(capsys, ["run", "--resume"])


# ---------------------------------------------------------------- evaluation and sampling of finished runs


def test_test_and_validate_repeat_the_runs_metrics(runs: dict[str, Path], capsys: pytest.CaptureFixture) -> None:
    run = runs["vae"]
    assert main(["test", "--config", str(run / "config.yaml"), "--ckpt_path", str(run)]) == 0
    printed = dict(line.split("  ") for line in capsys.readouterr().out.splitlines() if line.startswith("test/"))
    recorded = yaml.safe_load((run / "result.json").read_text())["metrics"]
    assert printed.keys() == recorded.keys()
    assert float(printed["test/nll"]) == pytest.approx(recorded["test/nll"], rel=1e-4)


def test_checkpoint_of_another_model_is_refused(runs: dict[str, Path], capsys: pytest.CaptureFixture) -> None:
    line = one_line(capsys, ["test", "--config", runs["gan"] / "config.yaml", "--ckpt_path", runs["vae"]])
    assert "lit_gen.vae.VAE" in line
    assert "lit_gen.gan.GAN" in line
    line = one_line(
        capsys,
        ["test", "--config", runs["vae"] / "config.yaml", "--ckpt_path", runs["vae"], "--model.init_args.beta", "7"],
    )
    assert "model.init_args.beta = 1.0" in line
    assert "7.0" in line


@pytest.mark.parametrize("family", ["gan", "vae"])
def test_sample_grid_array_and_walk(family: str, runs: dict[str, Path], tmp_path: Path, capsys) -> None:
    run = str(runs[family])
    grid, again, other = tmp_path / "a.png", tmp_path / "b.png", tmp_path / "c.png"
    assert main(["sample", run, "--n", "9", "--out", str(grid)]) == 0
    assert main(["sample", run, "--n", "9", "--out", str(again), "--seed", "0"]) == 0
    assert main(["sample", run, "--n", "9", "--out", str(other), "--seed", "1"]) == 0
    assert Image.open(grid).size[0] > 3 * 28
    assert grid.read_bytes() == again.read_bytes() != other.read_bytes()

    array = tmp_path / "s.npz"
    assert main(["sample", run, "--n", "300", "--out", str(array)]) == 0
    stored = np.load(array)
    assert stored["images"].shape[0] == 300
    low, high = stored["value_range"]
    assert low <= stored["images"].min() < stored["images"].max() <= high

    assert main(["sample", run, "--n", "25", "--interpolate", "--out", str(tmp_path / "walk.npz")]) == 0
    walk = torch.from_numpy(np.load(tmp_path / "walk.npz")["images"])
    assert walk.shape[0] == 25
    step = (walk[1] - walk[0]).norm()
    assert 0 < step < (walk[4] - walk[0]).norm() + (walk[24] - walk[0]).norm()


def test_four_corner_walk_ends_at_the_four_codes() -> None:
    from types import SimpleNamespace

    from lit_gen.cli.sample import four_corner_walk

    model = SimpleNamespace(latent_dim=6, conditional=False, from_latent=lambda z: z)
    generator = torch.Generator().manual_seed(5)
    z0, z1, z2, z3 = torch.randn(4, 6, generator=generator)
    walk = four_corner_walk(model, 4, None, torch.Generator().manual_seed(5))
    for index, corner in ((0, z0), (3, z1), (12, z2), (15, z3)):
        torch.testing.assert_close(walk[index], corner, atol=1e-5, rtol=1e-5)


def test_class_label(runs: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    out = tmp_path / "threes.npz"
    assert main(["sample", str(runs["cgan"]), "--class-label", "3", "--n", "5", "--out", str(out)]) == 0
    assert np.load(out)["images"].shape[0] == 5
    assert "0 to 9" in one_line(capsys, ["sample", runs["cgan"], "--class-label", "10", "--out", out])
    assert "unconditional" in one_line(capsys, ["sample", runs["gan"], "--class-label", "1", "--out", out])


def test_reconstructions(runs: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    out = tmp_path / "r.png"
    assert main(["sample", str(runs["vae"]), "--reconstruct", "--n", "8", "--out", str(out)]) == 0
    assert Image.open(out).size[0] > 0
    assert "--reconstruct" in one_line(capsys, ["sample", runs["gan"], "--reconstruct", "--out", out])


@pytest.mark.parametrize("hide", ["lower", "upper", "left", "right"])
def test_completions_keep_what_is_shown(hide: str, runs: dict[str, Path], tmp_path: Path, capsys) -> None:
    out = tmp_path / "c.npz"
    assert main(["sample", str(runs["inpainting"]), "--complete", "--hide", hide, "--n", "5", "--out", str(out)]) == 0
    original, seen, completed = torch.from_numpy(np.load(out)["images"]).reshape(3, 5, 28, 28)
    shown = {"lower": np.s_[:, :14], "upper": np.s_[:, 14:], "left": np.s_[:, :, 14:], "right": np.s_[:, :, :14]}[hide]
    assert torch.equal(original[shown], completed[shown])
    assert torch.equal(original[shown], seen[shown])
    assert not torch.equal(original, completed)
    assert "--complete" in one_line(capsys, ["sample", runs["gan"], "--complete", "--out", out])


def test_predict_writes_an_array_an_example(
    runs: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    for family, key in (("vae", "code"), ("gan", "score")):
        out = tmp_path / f"{family}.npz"
        words = [
            "predict",
            "--config",
            str(runs[family] / "config.yaml"),
            "--ckpt_path",
            str(runs[family]),
            "--out",
            str(out),
        ]
        assert main(words) == 0
        stored = np.load(out)
        assert stored[key].shape[0] == stored["label"].shape[0] == 397
    assert "x.txt" in one_line(capsys, [*words[:-1], "x.txt"])


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["nowhere"], "nowhere"),
        (["RUN", "--n", "0"], "--n 0"),
        (["RUN", "--out", "x.jpg"], "x.jpg"),
        (["RUN", "--seed", "x"], "--seed"),
        ([], "RUN_OR_CKPT"),
    ],
)
def test_mistakes_in_sample(words, expected, runs, capsys: pytest.CaptureFixture) -> None:
    words = [str(runs["gan"]) if word == "RUN" else word for word in words]
    assert expected in one_line(capsys, ["sample", *words])


def test_a_file_that_is_no_checkpoint(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    file = tmp_path / "x.ckpt"
    file.write_bytes(b"nothing")
    assert "not an intact checkpoint" in one_line(capsys, ["sample", file])
    torch.save({"weights": 1}, file)
    assert "not a lit_gen checkpoint" in one_line(capsys, ["sample", file])


# ---------------------------------------------------------------- the end of a run


def test_run_directory_and_record(runs: dict[str, Path]) -> None:
    run = runs["gan"]
    assert {path.name for path in run.iterdir()} >= {
        "config.yaml",
        "metrics.csv",
        "checkpoints",
        "samples",
        "result.json",
    }
    record = yaml.safe_load((run / "result.json").read_text())
    assert record["experiment"] == run.parent.name
    assert record["run_id"] == run.name
    assert record["metrics"]
    assert record["steps"] == 2
    assert record["parameters"]["generator"] > 0
    assert record["parameters"]["total"] == record["parameters"]["generator"] + record["parameters"]["discriminator"]
    assert set(record["git"]) == {"commit", "dirty"}
    assert record["versions"]["torch"] == torch.__version__.split("+")[0]
    assert record["world_size"] == 1


def test_a_diverging_run_stops_with_one_line_and_keeps_the_last_good_state(tmp_path: Path) -> None:
    settings = small(DIGITS_VAE, max_epochs=3)
    settings["model"]["init_args"]["optimizer"] = {"class_path": "torch.optim.SGD", "init_args": {"lr": 1e9}}
    file = tmp_path / "vae.yaml"
    file.write_text(yaml.safe_dump(settings))
    done = lit_gen("run", "--config", file, cwd=tmp_path, check=False)
    assert done.returncode == 3
    (line,) = [line for line in done.stderr.splitlines() if "error" in line]
    assert "loss" in line
    assert "at step" in line
    kept = torch.load(only_run(tmp_path) / "checkpoints" / "last_good.ckpt", weights_only=False)
    assert all(torch.isfinite(value).all() for value in kept["state_dict"].values())


def test_ctrl_c_is_one_line(tmp_path: Path) -> None:
    file = tmp_path / "vae.yaml"
    file.write_text(yaml.safe_dump(small(DIGITS_VAE, max_epochs=10000)))
    process = subprocess.Popen(
        [sys.executable, "-m", "lit_gen", "run", "--config", str(file)],
        cwd=tmp_path, env=process_environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    deadline = time.monotonic() + 120
    while not list(tmp_path.glob("runs/*/*/samples/*.png")) and time.monotonic() < deadline:
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in errors
    assert "--resume" in errors
