"""Recurrent cells: against torch's modules with their weights, or slow scalar references of the papers' equations."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from lit_gen.core.errors import UsageError
from lit_gen.text.cells import CELLS, Cell, FusedCell, make_cell

INPUTS, HIDDEN, ROWS, TIME = 3, 4, 2, 5
FUSED = [name for name, kind in CELLS.items() if issubclass(kind, FusedCell)]


def randomised(name: str) -> Cell:
    """A double-precision cell with no parameter at its special first value."""
    cell = make_cell(name, INPUTS, HIDDEN).double()
    for parameter in cell.parameters():
        nn.init.normal_(parameter, std=0.5)
    return cell


def sequence(cell: Cell, time: int = TIME) -> tuple[Tensor, tuple[Tensor, ...]]:
    x = torch.randn(ROWS, time, INPUTS, dtype=torch.float64, requires_grad=True)
    return x, tuple(torch.randn(ROWS, HIDDEN, dtype=torch.float64, requires_grad=True) for _ in range(cell.states))


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def gate(cell: Cell, number: int, x: list[float], h: list[float], unit: int) -> float:
    """One unit's sum of one gate: W x + U h + b."""
    row = number * HIDDEN + unit
    total = cell.bias[row].item()
    total += sum(cell.weight_ih[row, k].item() * x[k] for k in range(INPUTS))
    return total + sum(cell.weight_hh[row, k].item() * h[k] for k in range(HIDDEN))


def peephole_reference(cell: Cell, x: list[float], h: list[float], c: list[float]) -> tuple[list[float], list[float]]:
    """Graves 2013, equations 7 to 11."""
    p = cell.peephole.tolist()
    h_next, c_next = [], []
    for u in range(HIDDEN):
        i = sigmoid(gate(cell, 0, x, h, u) + p[0][u] * c[u])
        f = sigmoid(gate(cell, 1, x, h, u) + p[1][u] * c[u])
        c_next.append(f * c[u] + i * math.tanh(gate(cell, 2, x, h, u)))
        o = sigmoid(gate(cell, 3, x, h, u) + p[2][u] * c_next[u])
        h_next.append(o * math.tanh(c_next[u]))
    return h_next, c_next


def coupled_reference(cell: Cell, x: list[float], h: list[float], c: list[float]) -> tuple[list[float], list[float]]:
    """Greff et al. 2017, CIFG: the input gate is what the forget gate leaves."""
    h_next, c_next = [], []
    for u in range(HIDDEN):
        f = sigmoid(gate(cell, 0, x, h, u))
        c_next.append(f * c[u] + (1 - f) * math.tanh(gate(cell, 1, x, h, u)))
        h_next.append(sigmoid(gate(cell, 2, x, h, u)) * math.tanh(c_next[u]))
    return h_next, c_next


@pytest.mark.parametrize(
    ("name", "reference"), [("peephole_lstm", peephole_reference), ("coupled_lstm", coupled_reference)]
)
def test_own_cells_follow_the_equations(name: str, reference: object) -> None:
    cell = randomised(name)
    x, state = sequence(cell)
    outputs, (h, c) = cell.scan(x, state)
    for row in range(ROWS):
        slow_h, slow_c = state[0][row].tolist(), state[1][row].tolist()
        for t in range(TIME):
            slow_h, slow_c = reference(cell, x[row, t].tolist(), slow_h, slow_c)
            torch.testing.assert_close(outputs[row, t].tolist(), slow_h)
        torch.testing.assert_close((h[row].tolist(), c[row].tolist()), (slow_h, slow_c))


@pytest.mark.parametrize("name", ["peephole_lstm", "coupled_lstm"])
def test_own_cells_gradients_are_those_of_finite_differences(name: str) -> None:
    cell = randomised(name)
    x, state = sequence(cell, time=3)
    names = [name for name, _ in cell.named_parameters()]

    def run(x: Tensor, h: Tensor, c: Tensor, *parameters: Tensor) -> Tensor:
        step = torch.func.functional_call
        outputs, after = step(Scan(cell), {f"cell.{n}": p for n, p in zip(names, parameters)}, (x, (h, c)))
        return outputs.sum() + after[1].square().sum()

    assert torch.autograd.gradcheck(run, (x, *state, *cell.parameters()))


class Scan(nn.Module):
    def __init__(self, cell: Cell) -> None:
        super().__init__()
        self.cell = cell

    def forward(self, x: Tensor, state: tuple[Tensor, ...]) -> tuple[Tensor, tuple[Tensor, ...]]:
        return self.cell.scan(x, state)


@pytest.mark.parametrize("name", FUSED)
@pytest.mark.parametrize("path", ["scan", "loop"])
def test_plain_cells_equal_torch(name: str, path: str) -> None:
    kinds = {"rnn_tanh": nn.RNN, "rnn_relu": nn.RNN, "lstm": nn.LSTM, "gru": nn.GRU}
    options = {"nonlinearity": name[4:]} if name.startswith("rnn") else {}
    oracle = kinds[name](INPUTS, HIDDEN, batch_first=True, **options).double()
    cell = randomised(name)
    oracle.load_state_dict(cell.rnn.state_dict())
    x, state = sequence(cell)
    outputs, after = Cell.scan(cell, x, state) if path == "loop" else cell.scan(x, state)
    expected, last = oracle(x, tuple(s[None] for s in state) if len(state) > 1 else state[0][None])
    last = last if isinstance(last, tuple) else (last,)
    torch.testing.assert_close(outputs, expected)
    torch.testing.assert_close(after, tuple(s[0] for s in last))
    weight = torch.randn_like(outputs)
    ours = torch.autograd.grad((outputs * weight).sum() + after[-1].sum(), [x, *state, *cell.parameters()])
    theirs = torch.autograd.grad((expected * weight).sum() + last[-1].sum(), [x, *state, *oracle.parameters()])
    for our, their in zip(ours, theirs, strict=True):
        torch.testing.assert_close(our, their)


@pytest.mark.parametrize("name", CELLS)
def test_recurrent_mask_hides_the_last_state_from_the_gates(name: str) -> None:
    """Masked, the gates see what they see with the columns of U scaled."""
    cell = randomised(name)
    x, state = sequence(cell)
    mask = torch.tensor([0.0, 2.0, 0.0, 2.0], dtype=torch.float64)
    masked, _ = cell.scan(x, state, mask.expand(ROWS, HIDDEN))
    with torch.no_grad():
        cell.recurrent_weight.mul_(mask)
    torch.testing.assert_close(masked, cell.scan(x, state)[0])


@pytest.mark.parametrize("name", CELLS)
def test_initialisation(name: str) -> None:
    cell = make_cell(name, INPUTS, 8)
    for weight in cell.recurrent_weight.chunk(cell.gates):
        torch.testing.assert_close(weight @ weight.T, torch.eye(8), atol=1e-5, rtol=0)
    if name == "rnn_relu":
        assert torch.equal(cell.recurrent_weight, torch.eye(8))
    forget = {"lstm": 1, "peephole_lstm": 1, "coupled_lstm": 0}.get(name)
    for number, bias in enumerate(cell.input_bias.chunk(cell.gates)):
        assert torch.equal(bias, torch.full((8,), float(number == forget)))


def test_unknown_cell_is_named() -> None:
    with pytest.raises(UsageError, match=r"cell = lstmm; accepted: rnn_tanh, .*gru"):
        make_cell("lstmm", 2, 2)
