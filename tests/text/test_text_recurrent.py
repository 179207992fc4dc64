"""Stacks of recurrent layers against torch's, both paths against each other, variational dropout, the causal feature layer."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from lit_gen.core.errors import UsageError
from lit_gen.text.cache import TensorCache
from lit_gen.text.cells import CELLS, Cell
from lit_gen.text.recurrent import Recurrent
from lit_gen.text.recurrent_features import RecurrentFeatures

ROWS, TIME, INPUTS, HIDDEN, LAYERS = 3, 6, 4, 5, 2
TORCH = {"rnn_tanh": nn.RNN, "rnn_relu": nn.RNN, "lstm": nn.LSTM, "gru": nn.GRU}


def torch_twin(recurrent: Recurrent, name: str) -> nn.RNNBase:
    """torch's module with the stack's weights."""
    options = {"nonlinearity": name[4:]} if name.startswith("rnn") else {}
    both = recurrent.directions == 2
    twin = TORCH[name](INPUTS, HIDDEN, LAYERS, batch_first=True, bidirectional=both, **options)
    weights = {}
    for number, cell in enumerate(recurrent.cells):
        layer, direction = divmod(number, recurrent.directions)
        suffix = f"_l{layer}" + ("_reverse" if direction else "")
        weights |= {key.replace("_l0", suffix): value for key, value in cell.rnn.state_dict().items()}
    twin.load_state_dict(weights)
    return twin


def flat_states(recurrent: Recurrent, rows: int = ROWS) -> list[Tensor]:
    return [torch.randn(rows, HIDDEN) for cell in recurrent.cells for _ in range(cell.states)]


@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("name", TORCH)
def test_stack_equals_torch(name: str, bidirectional: bool) -> None:
    recurrent = Recurrent(INPUTS, HIDDEN, LAYERS, name, bidirectional)
    twin, kinds = torch_twin(recurrent, name), recurrent.cells[0].states
    x, states = torch.randn(ROWS, TIME, INPUTS, requires_grad=True), flat_states(recurrent)
    outputs, cache = recurrent(x, states)
    stacked = [torch.stack(states[kind::kinds]) for kind in range(kinds)]
    expected, last = twin(x, tuple(stacked) if kinds > 1 else stacked[0])
    last = last if isinstance(last, tuple) else (last,)
    torch.testing.assert_close(outputs, expected)
    for kind in range(kinds):
        torch.testing.assert_close(torch.stack(list(cache)[kind::kinds]), last[kind])
    weight = torch.randn_like(outputs)
    (ours,) = torch.autograd.grad((outputs * weight).sum(), x, retain_graph=True)
    (theirs,) = torch.autograd.grad((expected * weight).sum(), x, retain_graph=True)
    torch.testing.assert_close(ours, theirs)
    ours = torch.autograd.grad((outputs * weight).sum(), list(recurrent.parameters()))
    theirs = torch.autograd.grad((expected * weight).sum(), list(twin.parameters()))
    for our, their in zip(ours, theirs, strict=True):
        torch.testing.assert_close(our, their, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("name", TORCH)
def test_padded_rows_equal_packed_ones(name: str, bidirectional: bool) -> None:
    recurrent = Recurrent(INPUTS, HIDDEN, LAYERS, name, bidirectional)
    twin, lengths = torch_twin(recurrent, name), torch.tensor([4, 6, 1])
    mask = torch.arange(TIME) < lengths[:, None]
    x = torch.randn(ROWS, TIME, INPUTS)
    packed = nn.utils.rnn.pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
    expected, _ = nn.utils.rnn.pad_packed_sequence(twin(packed)[0], batch_first=True)
    outputs, _ = recurrent(x, mask=mask)
    torch.testing.assert_close(outputs[mask], expected[mask])


@pytest.mark.parametrize("name", TORCH)
def test_fused_equals_loop(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    recurrent = Recurrent(INPUTS, HIDDEN, LAYERS, name, bidirectional=True)
    x = torch.randn(ROWS, TIME, INPUTS)
    fused, states = recurrent(x)
    for cell in recurrent.cells:
        monkeypatch.setattr(cell, "scan", lambda *args, cell=cell: Cell.scan(cell, *args))
    looped, looped_states = recurrent(x)
    torch.testing.assert_close(fused, looped)
    for one, other in zip(states, looped_states, strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("name", CELLS)
def test_last_columns_can_be_fed_step_by_step(name: str) -> None:
    recurrent = Recurrent(INPUTS, HIDDEN, LAYERS, name)
    x, cache = torch.randn(ROWS, TIME, INPUTS), flat_states(recurrent)
    expected, last = recurrent(x, cache)
    states = recurrent.states(x, cache)
    for t, step in enumerate(recurrent.steps(x[..., :1])):
        states = step(x[:, t, 1:], states)
        torch.testing.assert_close(states[-1][0], expected[:, t])
    for one, other in zip(recurrent.cache(states), last, strict=True):
        torch.testing.assert_close(one, other)


# ---------------------------------------------------------------- dropout


def test_plain_dropout_is_between_layers_only() -> None:
    x = torch.randn(ROWS, TIME, INPUTS)
    single = Recurrent(INPUTS, HIDDEN, 1, "gru", dropout=0.9)
    torch.testing.assert_close(single(x)[0], single.eval()(x)[0])
    double = Recurrent(INPUTS, HIDDEN, 2, "gru", dropout=0.9)
    assert not torch.allclose(double(x)[0], double(x)[0])


@pytest.mark.parametrize("name", CELLS)
def test_variational_masks_are_constant_over_time(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The stack with its drawn masks equals a stepwise reference that applies one set of masks by hand."""
    recurrent = Recurrent(INPUTS, HIDDEN, LAYERS, name, dropout=0.4, variational=True)
    x = torch.randn(ROWS, TIME, INPUTS)
    masks = recurrent.masks(x)
    monkeypatch.setattr(recurrent, "masks", lambda x: masks)
    outputs, _ = recurrent(x)
    states = [cell.start(x) for cell in recurrent.cells]
    for t in range(TIME):
        read = x[:, t]
        for layer, cell in enumerate(recurrent.cells):
            states[layer] = cell.step(cell.project(read * masks[layer].input), states[layer], masks[layer].recurrent[0])
            read = states[layer][0]
        torch.testing.assert_close(outputs[:, t], read)


def test_variational_masks_scale_and_vary_over_rows() -> None:
    recurrent = Recurrent(50, 60, LAYERS, "lstm", bidirectional=True, dropout=0.25, variational=True)
    x = torch.zeros(400, 1, 50)
    masks = recurrent.masks(x)
    assert [mask.input.shape[1] for mask in masks] == [50, 120]
    drawn = [mask.input for mask in masks] + [each for mask in masks for each in mask.recurrent]
    assert len(drawn) == 6
    for mask in drawn:
        assert set(mask.unique().tolist()) == {0.0, torch.tensor(1 / 0.75).item()}
        assert abs(mask.mean().item() - 1) < 0.02  # 20,000 draws: six standard deviations
        assert not torch.equal(mask[0], mask[1])
    assert not torch.equal(*masks[0].recurrent)
    ones = recurrent.drop_output(torch.ones(4, 7, 30))
    assert torch.equal(ones, ones[:, :1].expand_as(ones))
    assert (ones == 0).any()


def test_no_variational_dropout_in_evaluation() -> None:
    recurrent = Recurrent(INPUTS, HIDDEN, LAYERS, "gru", dropout=0.5, variational=True)
    plain = Recurrent(INPUTS, HIDDEN, LAYERS, "gru")
    plain.load_state_dict(recurrent.state_dict())
    x = torch.randn(ROWS, TIME, INPUTS)
    assert not torch.allclose(recurrent(x)[0], plain(x)[0])
    assert torch.equal(recurrent.eval()(x)[0], plain(x)[0])


# ---------------------------------------------------------------- the feature layer


@pytest.fixture(params=CELLS)
def features(request: pytest.FixtureRequest) -> RecurrentFeatures:
    return RecurrentFeatures(INPUTS, HIDDEN, LAYERS, request.param)


def test_cached_equals_uncached(features: RecurrentFeatures) -> None:
    x = torch.randn(ROWS, TIME, INPUTS)
    whole, last = features(x)
    assert whole.shape == (ROWS, TIME, features.width)
    cache, parts = None, []
    for part in x.split([3, 1, 2], 1):
        part, cache = features(part, cache)
        parts.append(part)
    torch.testing.assert_close(torch.cat(parts, 1), whole, atol=1e-5, rtol=0)
    for one, other in zip(cache, last, strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=0)


def test_future_changes_nothing_before_it(features: RecurrentFeatures) -> None:
    x = torch.randn(ROWS, TIME, INPUTS)
    changed = x.clone()
    changed[:, 4] += 1
    before, after = features(x)[0], features(changed)[0]
    assert torch.equal(before[:, :4], after[:, :4])
    assert not torch.allclose(before[:, 4:], after[:, 4:])


def test_cache_selects_rows_and_ends_gradients(features: RecurrentFeatures) -> None:
    x, rows = torch.randn(ROWS, TIME, INPUTS), torch.tensor([2, 0, 0, 1])
    _, cache = features(x[:, :4])
    selected, _ = features(x[rows, 4:], cache.select(rows))
    torch.testing.assert_close(selected, features(x)[0][rows, 4:])
    assert all(tensor.requires_grad for tensor in cache)
    assert not any(tensor.requires_grad for tensor in cache.detach())
    restored = TensorCache(*(tensor.clone() for tensor in cache.detach()))  # as from a checkpoint
    torch.testing.assert_close(features(x[:, 4:], restored)[0], features(x)[0][:, 4:])


def test_gradients_reach_every_parameter(features: RecurrentFeatures) -> None:
    features(torch.randn(ROWS, TIME, INPUTS))[0].square().sum().backward()
    for name, parameter in features.named_parameters():
        assert parameter.grad.abs().sum() > 0, name


@pytest.mark.parametrize("cell", ["lstm", "gru", "peephole_lstm"])
def test_bfloat16_autocast(cell: str) -> None:
    features = RecurrentFeatures(INPUTS, HIDDEN, LAYERS, cell)
    x = torch.randn(ROWS, TIME, INPUTS)
    exact, _ = features(x)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        outputs, cache = features(x)
        again, _ = features(x[:, :1], cache)
    torch.testing.assert_close(outputs.float(), exact, atol=0.05, rtol=0)
    assert again.isfinite().all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"hidden": 0}, "hidden = 0; accepted: 1 or more"),
        ({"layers": 0}, "layers = 0"),
        ({"dropout": 1.0}, "dropout = 1.0; accepted: 0 <= dropout < 1"),
        ({"cell": "qrnn"}, "cell = qrnn"),
    ],
)
def test_bad_options_are_named(options: dict, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        RecurrentFeatures(INPUTS, **options)
