"""``lit-gen sample`` with models of text: translations, files, streams, prompts, attention maps, and mistakes."""

from __future__ import annotations

import io
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
import pytorch_lightning
import torch
from PIL import Image

from lit_gen.cli.main import main
from lit_gen.core.images import ImageSpec
from lit_gen.core.text import EOS, UNK, TextSpec
from lit_gen.gan import GAN
from lit_gen.text.decoding import Decoding, decode_stream, generate
from lit_gen.text.language_model import LanguageModel
from lit_gen.text.recurrent_decoder import RecurrentDecoder
from lit_gen.text.recurrent_encoder import RecurrentEncoder
from lit_gen.text.recurrent_features import RecurrentFeatures
from lit_gen.text.seq2seq import Seq2Seq
from lit_gen.text.transformer import TransformerDecoder, TransformerEncoder
from tests.conftest import lit_gen, process_environment
from tests.text.decoding_models import letters_vocabulary, spec_of
from tests.text.test_text_decoding_networks import confident

SIZES = {"layers": 1, "heads": 2, "feed_forward": 16}
LINES = ["abc", "", "head", "a bad cab", "xyz abc", "fad", "a" * 20]


def saved(model: pytorch_lightning.LightningModule, folder: Path) -> Path:
    """A checkpoint without a run."""
    checkpoint = {
        "state_dict": model.state_dict(), "hyper_parameters": dict(model.hparams), "epoch": 0, "global_step": 0,
        "pytorch-lightning_version": pytorch_lightning.__version__,
    }  # fmt: skip
    model.on_save_checkpoint(checkpoint)
    torch.save(checkpoint, folder / f"{type(model).__name__}.ckpt")
    return folder / f"{type(model).__name__}.ckpt"


@pytest.fixture(scope="module")
def models() -> dict[str, pytorch_lightning.LightningModule]:
    vocabulary = letters_vocabulary("abcdefgh \n")
    encoder, decoder = partial(TransformerEncoder, **SIZES), partial(TransformerDecoder, **SIZES)
    recurrent = partial(RecurrentEncoder, hidden=12), partial(RecurrentDecoder, hidden=12)
    return {
        "translator": confident(Seq2Seq(encoder, decoder, embedding_dim=16).build(spec_of("abcdefgh "))),
        "blind": confident(Seq2Seq(*recurrent, embedding_dim=16).build(spec_of("abcdefgh "))),
        "writer": confident(LanguageModel(partial(RecurrentFeatures, hidden=12), 16).build(TextSpec(vocabulary))),
        "lines": confident(LanguageModel(partial(RecurrentFeatures, hidden=12), 16).build(spec_of("abcdefgh ", None))),
    }


@pytest.fixture(scope="module")
def checkpoints(models, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return {name: str(saved(model, tmp_path_factory.mktemp(name))) for name, model in models.items()}


def text_of(model: Seq2Seq, line: str, decoding: Decoding) -> list[str]:
    return [model.spec.target.decode(each.tokens) for each in next(decode_stream(model, [line], decoding))]


def said(capsys: pytest.CaptureFixture, *words: str) -> str:
    capsys.readouterr()
    assert main(["sample", *map(str, words)]) == 0
    return capsys.readouterr().out


def one_line(capsys: pytest.CaptureFixture, *words: str) -> str:
    """What a mistake says: exit code 2 and one line on standard error."""
    capsys.readouterr()
    assert main(["sample", *map(str, words)]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    return captured.err


# -------------------------------------------------------------------- translations


def test_one_sentence(models, checkpoints, capsys) -> None:
    model, run = models["translator"], checkpoints["translator"]
    assert said(capsys, run, "--source", "bad head") == text_of(model, "bad head", Decoding())[0] + "\n"
    assert said(capsys, run, "--source", "bad head", "--greedy") == said(capsys, run, "--source", "bad head")
    beam = Decoding(beam=4, n_best=3, penalty="power", alpha=0.9, min_length=3, max_length=70, max_extra=70)
    options = [
        "--beam",
        "4",
        "--n-best",
        "3",
        "--penalty",
        "power",
        "--alpha",
        "0.9",
        "--min-length",
        "3",
        "--max-length",
        "70",
    ]
    assert said(capsys, run, "--source", "bad head", *options).splitlines() == text_of(model, "bad head", beam)
    found = next(decode_stream(model, ["bad head"], beam))
    for line, each in zip(said(capsys, run, "--source", "bad head", *options, "--scores").splitlines(), found):
        score, log_probability, text = line.split("\t")
        assert float(score) == pytest.approx(each.score, abs=1e-3)
        assert float(log_probability) == pytest.approx(each.log_probability, abs=1e-3)
        assert text == model.spec.target.decode(each.tokens)


def test_samples_of_a_translation(models, checkpoints, capsys) -> None:
    model, run = models["translator"], checkpoints["translator"]
    words = [
        run,
        "--source",
        "bad",
        "--temperature",
        "0.8",
        "--top-k",
        "5",
        "--top-p",
        "0.9",
        "--n",
        "3",
        "--seed",
        "4",
    ]
    decoding = Decoding(temperature=0.8, top_k=5, top_p=0.9, n_best=3, seed=4)
    assert said(capsys, *words).splitlines() == text_of(model, "bad", decoding)
    assert said(capsys, *words[:-1], "0") == said(capsys, *words[:-2])
    assert said(capsys, run, "--source", "bad", "--temperature", "0") == said(capsys, run, "--source", "bad")


@pytest.mark.parametrize("batch", [[], ["--batch", "1"], ["--batch", "3"]])
def test_a_file(models, checkpoints, capsys, tmp_path, batch: list[str]) -> None:
    source, out = tmp_path / "source.txt", tmp_path / "new" / "target.txt"
    source.write_text("".join(f"{line}\n" for line in LINES))
    words = [checkpoints["translator"], "--source-file", source, "--beam", "3", *batch]
    expected = [text_of(models["translator"], line, Decoding(beam=3))[0] if line else "" for line in LINES]
    assert said(capsys, *words).split("\n")[:-1] == expected
    assert said(capsys, *words, "--out", out) == ""
    assert out.read_text().split("\n")[:-1] == expected
    lines = said(capsys, *words, "--n-best", "2").splitlines()
    assert [line.split("\t")[0] for line in lines] == ["1", "1", "2", "3", "3", "4", "4", "5", "5", "6", "6", "7", "7"]
    assert [line.split("\t")[1] for line in lines[:2] + lines[3:]][::2] == [expected[0], *expected[2:]]


def test_standard_input_is_answered_line_by_line(models, checkpoints, capsys, monkeypatch) -> None:
    """A terminal's line is answered before the next one is read."""
    answered = []

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

        def __next__(self) -> str:
            answered.append(capsys.readouterr().out)
            return super().__next__()

    monkeypatch.setattr(sys, "stdin", Terminal("abc\nhead\nfad\n"))
    assert main(["sample", checkpoints["translator"], "--source-file", "-"]) == 0
    expected = [text_of(models["translator"], line, Decoding())[0] for line in ("abc", "head", "fad")]
    assert answered == ["", *(f"{text}\n" for text in expected)]


def test_unknown_words_are_named(checkpoints, capsys, tmp_path) -> None:
    main(["sample", checkpoints["translator"], "--source", "bad zebra qq head"])
    assert capsys.readouterr().err == "lit-gen: warning: unknown to the vocabulary: zebra, qq\n"
    file = tmp_path / "many.txt"
    file.write_text("".join(f"abc z{i}\n" for i in range(30)))
    main(["sample", checkpoints["translator"], "--source-file", str(file), "--max-length", "3"])
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "z0, " in error
    assert "(30 words in all)" in error


def test_attention_map(checkpoints, capsys, tmp_path) -> None:
    out = tmp_path / "map.png"
    said(capsys, checkpoints["translator"], "--source", "bad head", "--beam", "2", "--attention", out)
    assert Image.open(out).size[0] > 200
    assert "has no attention" in one_line(capsys, checkpoints["blind"], "--source", "bad", "--attention", out)


# -------------------------------------------------------------------- running text


def test_prompt(models, checkpoints, capsys) -> None:
    model, run = models["writer"], checkpoints["writer"]
    decode, encode = model.spec.target.decode, model.spec.target.encode
    prompt = encode("bad\ncab")
    assert UNK not in prompt
    texts = list(generate(model, prompt, 2, length=30, temperature=0.9, top_k=8, top_p=0.95, seed=3))
    words = [run, "--prompt", "bad\ncab", "--length", "30", "--temperature", "0.9", "--top-k", "8", "--top-p", "0.95"]
    shown = said(capsys, *words, "--n", "2", "--seed", "3")
    written = ["\n".join(map(decode, split([*prompt, *each.tokens]))) for each in texts]
    assert shown == f"{written[0]}\n{'-' * 40}\n{written[1]}\n"
    assert shown.startswith("bad\ncab")
    assert said(capsys, *words, "--seed", "3", "--scores").split("\n", 1) == [
        f"log p = {texts[0].log_probability:.4f} nats, 30 tokens", f"{written[0]}\n"
    ]  # fmt: skip


def split(tokens: list[int]) -> list[list[int]]:
    """At eos."""
    pieces: list[list[int]] = [[]]
    for token in tokens:
        pieces.append([]) if token == EOS else pieces[-1].append(token)
    return pieces


def test_without_a_prompt_a_line_begins(models, checkpoints, capsys) -> None:
    for name, before in (("writer", models["writer"].spec.target.encode("\n")), ("lines", [EOS])):
        (text,) = generate(models[name], before, length=50, temperature=0.0)
        expected = "\n".join(map(models[name].spec.target.decode, split([*text.tokens])))
        assert said(capsys, checkpoints[name], "--greedy", "--length", "50") == f"{expected}\n"
    (text,) = generate(models["lines"], [*models["lines"].spec.target.encode("bad"), EOS, 4], length=5, temperature=0.0)
    shown = said(capsys, checkpoints["lines"], "--greedy", "--length", "5", "--prompt", "bad\na")
    assert shown == "\n".join(map(models["lines"].spec.target.decode, split([*text.tokens]))).join(["bad\na", "\n"])


# -------------------------------------------------------------------- mistakes

SOURCE = ["--source", "abc"]
MISTAKES = {
    "beam": (["translator", *SOURCE, "--beam", "0"], ["--beam = 0", "1 or more"]),
    "no number": (["translator", *SOURCE, "--beam", "wide"], ["--beam", "wide"]),
    "n-best": (["translator", *SOURCE, "--beam", "2", "--n-best", "3"], ["--n-best = 3", "1 to --beam 2"]),
    "penalty": (["translator", *SOURCE, "--beam", "2", "--penalty", "google"], ["--penalty", "google", "gnmt"]),
    "idle penalty": (["translator", *SOURCE, "--penalty", "gnmt"], ["--penalty", "beam of 1"]),
    "alpha": (["translator", *SOURCE, "--beam", "2", "--alpha", "-1"], ["--alpha = -1", "0 or more"]),
    "idle alpha": (["translator", *SOURCE, "--alpha", "0"], ["--alpha", "beam of 1"]),
    "lengths": (["translator", *SOURCE, "--min-length", "9", "--max-length", "3"], ["--min-length = 9", "3"]),
    "temperature": (["writer", "--temperature", "-1"], ["--temperature = -1"]),
    "top-p": (["writer", "--top-p", "1.1"], ["--top-p = 1.1", "at most 1"]),
    "top-k": (["writer", "--top-k", "0"], ["--top-k = 0"]),
    "beam and temperature": (["translator", *SOURCE, "--beam", "2", "--temperature", "1"], ["--temperature", "--beam"]),
    "beam and greedy": (["translator", *SOURCE, "--beam", "2", "--greedy"], ["--beam", "--greedy"]),
    "head alone": (["translator", *SOURCE, "--top-k", "3"], ["--top-k", "--temperature"]),
    "idle seed": (["translator", *SOURCE, "--seed", "0"], ["--seed", "--temperature"]),
    "idle n": (["translator", *SOURCE, "--n", "3"], ["--n ", "--temperature"]),
    "two sources": (["translator", *SOURCE, "--source-file", "x"], ["--source-file", "--source"]),
    "source and length": (["translator", *SOURCE, "--length", "5"], ["--length", "--source"]),
    "no file": (["translator", "--source-file", "nowhere"], ["nowhere", "no such file"]),
    "no source": (["translator"], ["--source TEXT", "--source-file FILE"]),
    "empty source": (["translator", "--source", " "], ["--source", "empty"]),
    "prompt for a translator": (["translator", "--prompt", "a"], ["--prompt", "Seq2Seq", "--source"]),
    "source for a writer": (["writer", *SOURCE], ["--source", "LanguageModel", "--prompt"]),
    "beam for a writer": (["writer", "--beam", "3"], ["--beam", "--prompt"]),
    "prompt and beam": (["writer", "--prompt", "a", "--beam", "2"], ["--beam", "--prompt"]),
    "picture of a file": (["translator", "--source-file", "-", "--attention", "x.png"], ["--attention", "--source"]),
    "picture format": (["translator", *SOURCE, "--attention", "x.jpg"], ["x.jpg", ".png"]),
    "pictures of text": (["translator", "--interpolate"], ["--interpolate", "Seq2Seq"]),
    "class 0": (["writer", "--class-label", "0"], ["--class-label", "LanguageModel"]),
    "both": (["translator", *SOURCE, "--filters"], ["--filters", "--source"]),
    "unknown": (["translator", "--beams", "3"], ["--beams"]),
}  # fmt: skip


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes(mistake: str, checkpoints, capsys) -> None:
    (name, *words), expected = MISTAKES[mistake]
    error = one_line(capsys, checkpoints[name], *words)
    assert all(part in error for part in expected), error


def test_text_of_a_model_of_images(capsys, tmp_path) -> None:
    run = saved(GAN().build(ImageSpec((1, 16, 16), 10, (-1.0, 1.0))), tmp_path)
    error = one_line(capsys, run, "--temperature", "0")
    assert "--temperature is for text" in error
    assert "GAN" in error


def test_the_file_that_is_read_is_not_overwritten(checkpoints, capsys, tmp_path) -> None:
    source = tmp_path / "source.txt"
    source.write_text("abc\n")
    assert "--out" in one_line(capsys, checkpoints["translator"], "--source-file", source, "--out", source)
    assert source.read_text() == "abc\n"


def test_a_file_that_is_no_text(checkpoints, capsys, tmp_path) -> None:
    source = tmp_path / "source.txt"
    source.write_bytes(b"abc\n\xff\xfe\n")
    assert "not UTF-8" in one_line(capsys, checkpoints["translator"], "--source-file", source)


def test_pipes(checkpoints, models, tmp_path) -> None:
    """As a process: half a window of lines in, as many out."""
    words = [sys.executable, "-m", "lit_gen", "sample", checkpoints["translator"], "--source-file", "-"]
    done = subprocess.run(
        words, input="abc\n\nhead\n", capture_output=True, text=True, env=process_environment(), cwd=tmp_path
    )
    assert done.stdout.split("\n") == [
        text_of(models["translator"], "abc", Decoding())[0], "", text_of(models["translator"], "head", Decoding())[0], ""
    ]  # fmt: skip
    assert done.returncode == 0


def test_help_does_not_import_torch(tmp_path) -> None:
    assert "--source-file" in lit_gen("sample", "--help", cwd=tmp_path).stdout
    script = "import sys, lit_gen.cli.sample as s; s.make_parser().format_help(); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], env=process_environment()).returncode == 0
