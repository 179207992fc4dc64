"""Recurrent and convolutional encoders: nothing depends on padding, on other sentences; the convolutions' own formula."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lit_gen.core.errors import UsageError
from lit_gen.text.convolutional_encoder import ConvolutionalEncoder
from lit_gen.text.encoded import Encoded
from lit_gen.text.recurrent_encoder import RecurrentEncoder

DIM, HIDDEN, LENGTHS = 4, 6, [5, 1, 7]


def encoders() -> dict[str, nn.Module]:
    cells = ("lstm", "gru", "rnn_tanh", "rnn_relu", "peephole_lstm", "coupled_lstm")
    found = {f"{cell}-both": RecurrentEncoder(DIM, HIDDEN, 2, cell, bidirectional=True) for cell in cells}
    found["gru-forward"] = RecurrentEncoder(DIM, HIDDEN, 2, "gru")
    found["convolutional"] = ConvolutionalEncoder(DIM, HIDDEN, 3, kernel=3, max_length=20)
    return found


@pytest.fixture(params=encoders())
def encoder(request: pytest.FixtureRequest) -> nn.Module:
    return encoders()[request.param]


@pytest.fixture
def sentences() -> list[Tensor]:
    return [torch.randn(length, DIM) for length in LENGTHS]


def padded(sentences: list[Tensor], extra: int = 0) -> tuple[Tensor, Tensor]:
    """A batch padded with numbers that must not matter."""
    length = max(map(len, sentences)) + extra
    x = 100 * torch.randn(len(sentences), length, DIM)
    for row, sentence in enumerate(sentences):
        x[row, : len(sentence)] = sentence
    mask = torch.arange(length) < torch.tensor([len(sentence) for sentence in sentences])[:, None]
    return x, mask


@pytest.mark.parametrize("extra", [0, 3])
def test_independent_of_padding_and_batch(encoder: nn.Module, sentences: list[Tensor], extra: int) -> None:
    x, mask = padded(sentences, extra)
    encoded = encoder(x, mask)
    assert encoded.states.shape == (*mask.shape, encoder.width)
    assert torch.equal(encoded.mask, mask)
    assert not encoded.states[~mask].any()
    for row, sentence in enumerate(sentences):
        alone = encoder(sentence[None], torch.ones(1, len(sentence), dtype=torch.bool))
        close = {"atol": 1e-5, "rtol": 0}
        torch.testing.assert_close(encoded.states[row, : len(sentence)], alone.states[0], **close)
        torch.testing.assert_close(encoded.summary[row], alone.summary[0], **close)


def test_padding_gets_no_gradient_and_parameters_do(encoder: nn.Module, sentences: list[Tensor]) -> None:
    x, mask = padded(sentences)
    encoded = encoder(x.requires_grad_(), mask)
    (encoded.states.square().sum() + encoded.summary.square().sum()).backward()
    assert not x.grad[~mask].any()
    assert (x.grad[mask].abs().sum(-1) > 0).all()
    for name, parameter in encoder.named_parameters():
        assert parameter.grad.abs().sum() > 0, name


def test_summary_of_recurrent_encoder_is_the_final_state(sentences: list[Tensor]) -> None:
    encoder = RecurrentEncoder(DIM, HIDDEN, 1, "lstm", bidirectional=True)
    forward, backward = (cell.rnn for cell in encoder.recurrent.cells)
    summary = encoder(*padded(sentences)).summary
    for row, sentence in enumerate(sentences):
        _, (h, _) = forward(sentence)
        _, (h_back, _) = backward(sentence.flip(0))
        torch.testing.assert_close(summary[row], torch.cat([h[0], h_back[0]]))


def test_encoded_selects_rows(sentences: list[Tensor]) -> None:
    encoded = ConvolutionalEncoder(DIM, HIDDEN)(*padded(sentences))
    rows = torch.tensor([2, 2, 0])
    selected = encoded.select(rows)
    assert isinstance(selected, Encoded)
    for one, other in zip(selected, encoded):
        assert torch.equal(one, other[rows])


def test_dropout_leaves_the_summary_consistent_in_evaluation(sentences: list[Tensor]) -> None:
    encoder = RecurrentEncoder(DIM, HIDDEN, 1, "gru", dropout=0.5)
    x, mask = padded(sentences)
    dropped = encoder(x, mask).states[mask]
    kept = encoder.eval()(x, mask).states[mask]
    zero = dropped == 0
    assert 0.25 < zero.float().mean() < 0.75
    torch.testing.assert_close(dropped[~zero], 2 * kept[~zero])


# ---------------------------------------------------------------- convolutional


def test_convolutional_encoder_follows_the_paper() -> None:
    """Gehring et al. 2017: each convolution by explicit sums over a zero-padded sentence, then GLU and residual."""
    encoder, x = ConvolutionalEncoder(DIM, HIDDEN, layers=2, kernel=3, max_length=9), torch.randn(1, 6, DIM)
    e = x[0] + encoder.positions[:6]
    z = F.linear(e, encoder.widen.weight, encoder.widen.bias)
    for convolution in encoder.convolutions:
        around = torch.cat([torch.zeros(1, HIDDEN), z, torch.zeros(1, HIDDEN)])
        rows = []
        for t in range(6):
            sums = convolution.bias + sum(convolution.weight[:, :, k] @ around[t + k] for k in range(3))
            rows.append((sums[:HIDDEN] * torch.sigmoid(sums[HIDDEN:]) + z[t]) * math.sqrt(0.5))
        z = torch.stack(rows)
    expected = (F.linear(z, encoder.narrow.weight, encoder.narrow.bias) + e) * math.sqrt(0.5)
    encoded = encoder(x, torch.ones(1, 6, dtype=torch.bool))
    torch.testing.assert_close(encoded.states[0], expected)
    torch.testing.assert_close(encoded.summary[0], expected.mean(0))


def test_convolutional_encoder_keeps_variances() -> None:
    """Without the gates' factor of four eight layers would leave 0.5, with twice their weights far more than 5."""
    encoder = ConvolutionalEncoder(128, 128, layers=8, max_length=64)
    states = encoder(torch.randn(8, 64, 128), torch.ones(8, 64, dtype=torch.bool)).states
    assert 0.8 < states.var().item() < 5


def test_order_of_words_matters_only_through_positions() -> None:
    """With kernels of one word and no positions, reversing a sentence reverses its states; positions break that."""
    encoder, x = ConvolutionalEncoder(DIM, HIDDEN, kernel=1), torch.randn(1, 5, DIM)
    mask = torch.ones(1, 5, dtype=torch.bool)
    assert not torch.allclose(encoder(x.flip(1), mask).states, encoder(x, mask).states.flip(1))
    nn.init.zeros_(encoder.positions)
    torch.testing.assert_close(encoder(x.flip(1), mask).states, encoder(x, mask).states.flip(1))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kernel": 2}, "kernel = 2; accepted: an odd number of words"),
        ({"layers": 0}, "layers = 0"),
        ({"hidden": 0}, "hidden = 0"),
        ({"dropout": -0.1}, "dropout = -0.1"),
        ({"max_length": 0}, "max_length = 0"),
    ],
)
def test_bad_options_are_named(options: dict, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        ConvolutionalEncoder(DIM, **options)


def test_sentence_beyond_the_positions_is_named() -> None:
    with pytest.raises(UsageError, match="length of a sentence = 9; accepted: at most max_length = 8"):
        ConvolutionalEncoder(DIM, max_length=8)(torch.randn(1, 9, DIM), torch.ones(1, 9, dtype=torch.bool))
