r"""Recurrent cells: one step in time, and whole sequences by the fastest way that gives the same numbers.

With the weights W, U and b of all gates stacked, :math:`W x_t + b` is one product of matrices for all times
(:meth:`Cell.project`), and :math:`U h_{t-1}` is added one time after the other (:meth:`Cell.step`). torch's own kernels do
both for the plain cells; cells that torch lacks, dropout on the recurrent connection, and inputs that depend on the state
before (input feeding) take the loop.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import partial
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lit_gen.core.errors import require

CellName = Literal["rnn_tanh", "rnn_relu", "lstm", "gru", "peephole_lstm", "coupled_lstm"]
State = tuple[Tensor, ...]
"""(h,) or (h, c), each ``[R, hidden]``: the first is what the layer above sees."""


class Cell(nn.Module, ABC):
    """A recurrent cell whose gates read the input and the last state.

    Gate by gate, input weights start as Glorot's uniform and recurrent ones orthogonal (Saxe et al.); biases start at zero,
    those of forget gates at one, so that a new LSTM remembers (Jozefowicz et al.).

    Args:
        inputs: width of x.
        hidden: width of h.

    References:
        Saxe et al., Exact solutions to the nonlinear dynamics of learning, ICLR 2014, arXiv:1312.6120 (orthogonal weights).
        Jozefowicz et al., An empirical exploration of recurrent network architectures, ICML 2015 (forget bias).
    """

    gates: ClassVar[int]
    """How many ``hidden``-wide rows of weights a step needs."""
    states: ClassVar[int] = 1
    """Number of tensors of the state: 1 (h) or 2 (h, c)."""

    def __init__(self, inputs: int, hidden: int) -> None:
        super().__init__()
        self.inputs, self.hidden = inputs, hidden
        self.create()
        for weight in self.input_weight.detach().chunk(self.gates):
            nn.init.xavier_uniform_(weight)
        for weight in self.recurrent_weight.detach().chunk(self.gates):
            self.initialise_recurrent(weight)

    def create(self) -> None:
        """Makes the parameters; biases in their final state."""
        self.weight_ih = nn.Parameter(torch.empty(self.gates * self.hidden, self.inputs))
        self.weight_hh = nn.Parameter(torch.empty(self.gates * self.hidden, self.hidden))
        self.bias = nn.Parameter(torch.zeros(self.gates * self.hidden))

    def initialise_recurrent(self, weight: Tensor) -> None:
        """Fills one gate's square recurrent weight."""
        nn.init.orthogonal_(weight)

    # W, U and b by one name for all cells; b is what is added once for all times.
    input_weight = property(lambda self: self.weight_ih)
    recurrent_weight = property(lambda self: self.weight_hh)
    input_bias = property(lambda self: self.bias)

    def start(self, x: Tensor) -> State:
        """The zero state for rows like those of x."""
        return tuple(x.new_zeros(x.shape[0], self.hidden) for _ in range(self.states))

    def project(self, x: Tensor) -> Tensor:
        """What the gates get of the input: ``[..., inputs]`` -> ``[..., gates * hidden]``."""
        return F.linear(x, self.input_weight, self.input_bias)

    @abstractmethod
    def step(self, projected: Tensor, state: State, mask: Tensor | None = None) -> State:
        """The next state.

        Args:
            projected: :meth:`project` of the input at this time, ``[R, gates * hidden]``.
            state: the state before.
            mask: dropout mask ``[R, hidden]`` of the recurrent connection, already scaled; None for no dropout.
        """

    def scan(self, x: Tensor, state: State, mask: Tensor | None = None) -> tuple[Tensor, State]:
        """Reads a sequence step by step.

        Shape:
            x ``[R, T, inputs]``, mask ``[R, hidden]`` -> outputs ``[R, T, hidden]``, last state.
        """
        outputs = []
        for projected in self.project(x.transpose(0, 1)).unbind(0):
            state = self.step(projected, state, mask)
            outputs.append(state[0])
        return torch.stack(outputs, 1), state

    def gate_sum(self, projected: Tensor, h: Tensor, mask: Tensor | None) -> Tensor:
        """``projected`` + U h, in the state's precision."""
        h_read = h if mask is None else h * mask
        return torch.addmm(projected, h_read, self.recurrent_weight.t()).to(h.dtype)


class FusedCell(Cell):
    """A cell that torch has too: its parameters are those of a one-layer torch module, which reads whole sequences."""

    fused: ClassVar[Callable[..., nn.RNNBase]]

    def create(self) -> None:
        self.rnn = type(self).fused(self.inputs, self.hidden, batch_first=True)
        nn.init.zeros_(self.rnn.bias_ih_l0)
        nn.init.zeros_(self.rnn.bias_hh_l0)

    input_weight = property(lambda self: self.rnn.weight_ih_l0)
    recurrent_weight = property(lambda self: self.rnn.weight_hh_l0)
    input_bias = property(lambda self: self.rnn.bias_ih_l0 + self.rnn.bias_hh_l0)

    def scan(self, x: Tensor, state: State, mask: Tensor | None = None) -> tuple[Tensor, State]:
        single = x.shape[1] == 1 and x.device.type == "cpu"  # where torch's kernels take longer to begin than to end
        if mask is not None or single:
            return super().scan(x, state, mask)
        before = tuple(s.unsqueeze(0) for s in state)
        outputs, after = self.rnn(x, before if self.states > 1 else before[0])
        after = after if self.states > 1 else (after,)
        return outputs, tuple(s.squeeze(0) for s in after)


class RNN(FusedCell):
    r"""Elman's network: :math:`h_t = \tanh(W x_t + U h_{t-1} + b)`.

    References:
        Elman, Finding structure in time, Cognitive Science 14, 1990.
    """

    gates = 1
    fused = partial(nn.RNN, nonlinearity="tanh")

    def step(self, projected: Tensor, state: State, mask: Tensor | None = None) -> State:
        return (self.gate_sum(projected, state[0], mask).tanh(),)


class ReLURNN(FusedCell):
    r"""Elman's network with :math:`h_t = \max(0, W x_t + U h_{t-1} + b)`; U starts as the identity.

    References:
        Le et al., A simple way to initialize recurrent networks of rectified linear units, 2015, arXiv:1504.00941.
    """

    gates = 1
    fused = partial(nn.RNN, nonlinearity="relu")

    def initialise_recurrent(self, weight: Tensor) -> None:
        nn.init.eye_(weight)

    def step(self, projected: Tensor, state: State, mask: Tensor | None = None) -> State:
        return (self.gate_sum(projected, state[0], mask).relu(),)


class LSTM(FusedCell):
    r"""Long short-term memory, in torch's order of gates i, f, g, o.

    .. math::
        i, f, o &= \sigma(W_{i,f,o} x_t + U_{i,f,o} h_{t-1} + b_{i,f,o}), \quad g = \tanh(W_g x_t + U_g h_{t-1} + b_g) \\
        c_t &= f \odot c_{t-1} + i \odot g, \quad h_t = o \odot \tanh c_t

    References:
        Hochreiter and Schmidhuber, Long short-term memory, Neural Computation 9(8), 1997.
        Gers et al., Learning to forget, Neural Computation 12(10), 2000 (the forget gate).
    """

    gates, states = 4, 2
    fused = nn.LSTM

    def create(self) -> None:
        super().create()
        nn.init.ones_(self.rnn.bias_ih_l0.detach()[self.hidden : 2 * self.hidden])

    def step(self, projected: Tensor, state: State, mask: Tensor | None = None) -> State:
        i, f, g, o = self.gate_sum(projected, state[0], mask).chunk(4, 1)
        c = torch.addcmul(f.sigmoid() * state[1], i.sigmoid(), g.tanh())
        return o.sigmoid() * c.tanh(), c


class GRU(FusedCell):
    r"""Gated recurrent unit, in torch's order of gates r, z, n and with torch's place of r (after the product).

    .. math::
        r, z &= \sigma(W_{r,z} x_t + U_{r,z} h_{t-1} + b_{r,z}), \quad
        n = \tanh(W_n x_t + b_n + r \odot (U_n h_{t-1} + b'_n)) \\
        h_t &= (1 - z) \odot n + z \odot h_{t-1}

    References:
        Cho et al., Learning phrase representations using RNN encoder-decoder, EMNLP 2014, arXiv:1406.1078.
    """

    gates = 3
    fused = nn.GRU

    input_bias = property(lambda self: self.rnn.bias_ih_l0)  # the other bias is multiplied by r

    def step(self, projected: Tensor, state: State, mask: Tensor | None = None) -> State:
        h = state[0]
        ours = F.linear(h if mask is None else h * mask, self.recurrent_weight, self.rnn.bias_hh_l0).to(h.dtype)
        projected = projected.to(h.dtype)
        r, z = (projected[:, : 2 * self.hidden] + ours[:, : 2 * self.hidden]).sigmoid().chunk(2, 1)
        n = torch.addcmul(projected[:, 2 * self.hidden :], r, ours[:, 2 * self.hidden :]).tanh()
        return (torch.lerp(n, h, z),)


class PeepholeLSTM(Cell):
    r"""LSTM whose gates see the memory cell through diagonal weights p.

    .. math::
        i &= \sigma(W_i x_t + U_i h_{t-1} + p_i \odot c_{t-1} + b_i), \quad
        f = \sigma(W_f x_t + U_f h_{t-1} + p_f \odot c_{t-1} + b_f) \\
        c_t &= f \odot c_{t-1} + i \odot \tanh(W_g x_t + U_g h_{t-1} + b_g) \\
        o &= \sigma(W_o x_t + U_o h_{t-1} + p_o \odot c_t + b_o), \quad h_t = o \odot \tanh c_t

    References:
        Gers and Schmidhuber, Recurrent nets that time and count, IJCNN 2000.
        Graves, Generating sequences with recurrent neural networks, 2013, arXiv:1308.0850, equations 7 to 11.
    """

    gates, states = 4, 2

    def create(self) -> None:
        super().create()
        nn.init.ones_(self.bias.detach()[self.hidden : 2 * self.hidden])
        self.peephole = nn.Parameter(torch.empty(3, self.hidden).uniform_(-0.1, 0.1))

    def step(self, projected: Tensor, state: State, mask: Tensor | None = None) -> State:
        h, c = state
        i, f, g, o = self.gate_sum(projected, h, mask).chunk(4, 1)
        p_i, p_f, p_o = self.peephole.unbind(0)
        c_next = torch.addcmul(f, p_f, c).sigmoid() * c
        c_next = torch.addcmul(c_next, torch.addcmul(i, p_i, c).sigmoid(), g.tanh())
        return torch.addcmul(o, p_o, c_next).sigmoid() * c_next.tanh(), c_next


class CoupledLSTM(Cell):
    r"""LSTM that writes as much as it forgets, i = 1 - f (without peepholes).

    .. math::
        f, o &= \sigma(W_{f,o} x_t + U_{f,o} h_{t-1} + b_{f,o}), \quad g = \tanh(W_g x_t + U_g h_{t-1} + b_g) \\
        c_t &= f \odot c_{t-1} + (1 - f) \odot g, \quad h_t = o \odot \tanh c_t

    References:
        Greff et al., LSTM: a search space odyssey, IEEE TNNLS 28(10), 2017, arXiv:1503.04069, variant CIFG.
    """

    gates, states = 3, 2

    def create(self) -> None:
        super().create()
        nn.init.ones_(self.bias.detach()[: self.hidden])

    def step(self, projected: Tensor, state: State, mask: Tensor | None = None) -> State:
        f, g, o = self.gate_sum(projected, state[0], mask).chunk(3, 1)
        c = torch.lerp(g.tanh(), state[1], f.sigmoid())
        return o.sigmoid() * c.tanh(), c


CELLS: dict[str, type[Cell]] = {
    "rnn_tanh": RNN,
    "rnn_relu": ReLURNN,
    "lstm": LSTM,
    "gru": GRU,
    "peephole_lstm": PeepholeLSTM,
    "coupled_lstm": CoupledLSTM,
}


def make_cell(name: CellName, inputs: int, hidden: int) -> Cell:
    """A cell by its name.

    Raises:
        UsageError: no such cell.
    """
    require(name in CELLS, "cell", name, ", ".join(CELLS))
    return CELLS[name](inputs, hidden)
