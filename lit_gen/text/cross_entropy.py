"""The output layer and its cross-entropy as one operation: logits of a whole batch never exist."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

CHUNK = {"cpu": 2**21, "cuda": 2**26}
"""Logits that exist at one time: on a CPU about as many as its cache holds."""


def linear_cross_entropy(
    features: Tensor, weight: Tensor, bias: Tensor | None, target: Tensor, label_smoothing: float = 0.0
) -> Tensor:
    r"""Cross-entropy of a linear output layer, summed over tokens.

    .. math:: \sum_i (1 - \epsilon)\,(-\log p_i(t_i)) + \frac{\epsilon}{V} \sum_v (-\log p_i(v)), \quad
        p_i = \mathrm{softmax}(W h_i + b)

    The gradient is computed together with the value, a few rows at a time, while their logits are in the cache: with ten
    thousand words a third of the passes over memory that the two operations one after the other take.

    Args:
        features: h.
        weight, bias: W and b.
        target: t.
        label_smoothing: epsilon, spread over the whole vocabulary (Szegedy et al. 2016).

    Shape:
        features ``[N, D]``, weight ``[V, D]``, bias ``[V]``, target int64 ``[N]``; result scalar, nats.

    References:
        Szegedy et al., Rethinking the Inception architecture, CVPR 2016 (arXiv:1512.00567), section 7.
    """
    return _LinearCrossEntropy.apply(features, weight, bias, target, label_smoothing)


@torch.no_grad()
def token_nats(features: Tensor, weight: Tensor, bias: Tensor | None, target: Tensor) -> tuple[Tensor, Tensor]:
    """Nats of each token and whether it is the most probable one.

    Shape:
        features ``[N, D]``, weight ``[V, D]``, bias ``[V]``, target int64 ``[N]``; result float32 ``[N]`` and bool ``[N]``.
    """
    nats, correct = [features.new_empty(0, dtype=torch.float32)], [target.new_empty(0, dtype=torch.bool)]
    for rows in _chunks(len(target), len(weight), features.device):
        logits, truth = _logits(features[rows], weight, bias), target[rows]
        correct.append(logits.argmax(-1) == truth)
        nats.append(-logits.log_softmax(-1).gather(-1, truth[:, None])[:, 0])
    return torch.cat(nats), torch.cat(correct)


def _logits(features: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return torch.nn.functional.linear(features, weight, bias).float()


def _chunks(rows: int, vocabulary: int, device: torch.device) -> Iterator[slice]:
    step = max(1, CHUNK.get(device.type, CHUNK["cuda"]) // vocabulary)
    return (slice(start, start + step) for start in range(0, rows, step))


class _LinearCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(ctx, features: Tensor, weight: Tensor, bias: Tensor | None, target: Tensor, smoothing: float) -> Tensor:
        need_features, need_weight, need_bias = ctx.needs_input_grad[:3]
        d_features = torch.empty_like(features) if need_features else None
        d_weight = torch.zeros_like(weight, dtype=torch.float32) if need_weight else None
        d_bias = torch.zeros_like(bias, dtype=torch.float32) if need_bias else None
        total = torch.zeros((), dtype=torch.float32, device=features.device)
        low_precision = torch.is_autocast_enabled(features.device.type)
        for rows in _chunks(len(target), len(weight), features.device):
            h, truth = features[rows], target[rows, None]
            log_p = torch.log_softmax(_logits(h, weight, bias), -1)
            total -= (1 - smoothing) * log_p.gather(-1, truth).sum()
            if smoothing:
                total -= smoothing * log_p.mean(-1).sum()
            gradient = log_p.exp_()  # of the logits: p - (1 - epsilon) onehot(t) - epsilon / V
            if smoothing:
                gradient -= smoothing / len(weight)
            gradient.scatter_add_(-1, truth, gradient.new_full((1, 1), smoothing - 1).expand_as(truth))
            if need_features:
                d_features[rows] = gradient.to(weight.dtype) @ weight
            if need_weight and low_precision:  # the product in 16 bits, as autocast has it, the sum in 32
                d_weight += gradient.T @ h
            elif need_weight:
                d_weight.addmm_(gradient.T, h)
            if need_bias:
                d_bias += gradient.sum(0)
        ctx.gradients = d_features, d_weight, d_bias
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx, scale: Tensor) -> tuple[Tensor | None, ...]:
        gradients = (gradient if gradient is None else gradient * scale for gradient in ctx.gradients)
        return (*gradients, None, None)
