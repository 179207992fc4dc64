"""The Transformer against torch.nn.Transformer, and what its layers must not see."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from torch import nn

from lit_gen.core.errors import UsageError
from lit_gen.text.dropout import dropout
from lit_gen.text.positions import sinusoids
from lit_gen.text.transformer import CausalTransformer, TransformerDecoder, TransformerEncoder
from lit_gen.text.transformer_layers import Sublayer

D, H, F, B, S, T = 24, 4, 40, 3, 7, 5
SMALL = {"layers": 2, "heads": H, "feed_forward": F, "initialisation": "xavier"}
POSITIONS = ("sinusoidal", "learned", "rotary")
SOURCE_MASK = torch.arange(S) < torch.tensor([S, 4, 2]).unsqueeze(1)
TARGET_MASK = torch.arange(T) < torch.tensor([3, T, 1]).unsqueeze(1)


def copy_attention(ours: nn.Module, theirs: nn.MultiheadAttention) -> None:
    packed = [ours.qkv] if hasattr(ours, "qkv") else [ours.query, ours.key_value]
    theirs.in_proj_weight.data = torch.cat([layer.weight.data for layer in packed])
    theirs.in_proj_bias.data = torch.cat([layer.bias.data for layer in packed])
    theirs.out_proj.load_state_dict(ours.output.state_dict())


def torch_stack(ours: TransformerEncoder | TransformerDecoder, norm: str, activation: str) -> nn.Module:
    """torch's encoder or decoder with our weights."""
    decoder = isinstance(ours, TransformerDecoder)
    layer_type = nn.TransformerDecoderLayer if decoder else nn.TransformerEncoderLayer
    layer = layer_type(D, H, F, 0.0, activation, batch_first=True, norm_first=norm == "pre")
    last = nn.LayerNorm(D) if norm == "pre" else None
    theirs = nn.TransformerDecoder(layer, 2, last) if decoder else nn.TransformerEncoder(layer, 2, last, False)
    for mine, other in zip(ours.layers, theirs.layers):
        parts: list[Sublayer] = [mine.self_attention, mine.feed_forward]
        copy_attention(mine.self_attention.network, other.self_attn)
        if decoder:
            parts.insert(1, mine.cross_attention)
            copy_attention(mine.cross_attention.network, other.multihead_attn)
        other.linear1.load_state_dict(mine.feed_forward.network.hidden.state_dict())
        other.linear2.load_state_dict(mine.feed_forward.network.output.state_dict())
        for number, part in enumerate(parts, 1):
            getattr(other, f"norm{number}").load_state_dict(part.norm.state_dict())
    if norm == "pre":
        theirs.norm.load_state_dict(ours.norm.state_dict())
    return theirs


def scramble(module: nn.Module) -> None:
    """Random biases and gains too, which start at zero and one."""
    for parameter in module.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)


@pytest.mark.parametrize(("norm", "activation"), [("post", "relu"), ("pre", "gelu")])
def test_encoder_and_decoder_are_those_of_torch(norm: str, activation: str) -> None:
    options = {**SMALL, "norm": norm, "activation": activation, "dropout": 0.0}
    encoder, decoder = TransformerEncoder(D, **options), TransformerDecoder(D, D, **options)
    scramble(encoder), scramble(decoder)
    their_encoder, their_decoder = (torch_stack(each, norm, activation) for each in (encoder, decoder))
    x, y = torch.randn(B, S, D, requires_grad=True), torch.randn(B, T, D, requires_grad=True)
    encoded = encoder(x, SOURCE_MASK)
    features, _ = decoder(y, decoder.memory(encoded))

    positioned = [math.sqrt(D) * each + sinusoids(each.shape[1], D) for each in (x, y)]
    states = their_encoder(positioned[0], src_key_padding_mask=~SOURCE_MASK)
    causal = torch.ones(T, T, dtype=torch.bool).triu(1)
    padding = {"tgt_key_padding_mask": ~TARGET_MASK, "memory_key_padding_mask": ~SOURCE_MASK}
    expected = their_decoder(positioned[1], states, tgt_mask=causal, **padding)
    torch.testing.assert_close(encoded.states[SOURCE_MASK], states[SOURCE_MASK], atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(features[TARGET_MASK], expected[TARGET_MASK], atol=1e-5, rtol=1e-4)

    weight = torch.randn(B, T, D)[TARGET_MASK]
    ours = torch.autograd.grad((features[TARGET_MASK] * weight).sum(), [x, y], retain_graph=True)
    theirs = torch.autograd.grad((expected[TARGET_MASK] * weight).sum(), [x, y], retain_graph=True)
    for mine, other in zip(ours, theirs):
        torch.testing.assert_close(mine, other, atol=2e-5, rtol=1e-3)
    for mine, other in (
        ("self_attention.network.qkv.weight", "self_attn.in_proj_weight"),
        ("self_attention.network.qkv.bias", "self_attn.in_proj_bias"),
        ("feed_forward.network.output.weight", "linear2.weight"),
        ("feed_forward.norm.bias", "norm2.bias"),
    ):
        p, q = encoder.layers[0].get_parameter(mine), their_encoder.layers[0].get_parameter(other)
        (ours,) = torch.autograd.grad((features[TARGET_MASK] * weight).sum(), p, retain_graph=True)
        (theirs,) = torch.autograd.grad((expected[TARGET_MASK] * weight).sum(), q, retain_graph=True)
        torch.testing.assert_close(ours, theirs, atol=2e-5, rtol=1e-3)


@pytest.mark.parametrize("positions", POSITIONS)
def test_padding_does_not_change_real_positions(positions: str) -> None:
    encoder, decoder = TransformerEncoder(D, positions=positions, **SMALL), TransformerDecoder(D, D, **SMALL)
    encoder.eval(), decoder.eval()
    x, y = torch.randn(B, S, D), torch.randn(B, T, D)
    encoded = encoder(x, SOURCE_MASK)
    features, _ = decoder(y, decoder.memory(encoded))
    for row, length in enumerate(SOURCE_MASK.sum(1)):
        alone = encoder(x[row : row + 1, :length], SOURCE_MASK[row : row + 1, :length])
        torch.testing.assert_close(encoded.states[row, :length], alone.states[0])
        torch.testing.assert_close(encoded.summary[row], alone.states[0].mean(0))
        one, _ = decoder(y[row : row + 1], decoder.memory(alone))
        torch.testing.assert_close(features[row], one[0], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("positions", POSITIONS)
def test_a_future_token_changes_nothing_before_it(positions: str) -> None:
    causal = CausalTransformer(D, positions=positions, dropout=0.0, **SMALL)
    decoder = TransformerDecoder(D, D, positions=positions, dropout=0.0, **SMALL)
    memory = decoder.memory(TransformerEncoder(D, **SMALL)(torch.randn(B, S, D), SOURCE_MASK))
    x = torch.randn(B, T, D)
    changed = x.clone()
    changed[:, 3] = torch.randn(B, D)
    for network in (causal, lambda each: decoder(each, memory)):
        before, after = network(x)[0], network(changed)[0]
        torch.testing.assert_close(before[:, :3], after[:, :3], atol=1e-6, rtol=0)
        assert not torch.allclose(before[:, 3:], after[:, 3:])


def test_positions_are_seen() -> None:
    x = torch.randn(1, 1, D).expand(1, T, D)
    for positions in POSITIONS:
        features, _ = CausalTransformer(D, positions=positions, **SMALL).eval()(x)
        same = torch.allclose(features[0, 0], features[0, 1], atol=1e-4)
        assert same == (positions == "rotary")  # which tell nothing where all values are equal
    x = torch.randn(1, T, D)
    swapped = x[:, [1, 0, 2, 3, 4]]
    for positions in POSITIONS:
        encoder = TransformerEncoder(D, positions=positions, **SMALL).eval()
        mask = torch.ones(1, T, dtype=torch.bool)
        assert not torch.allclose(encoder(x, mask).states[:, 4], encoder(swapped, mask).states[:, 4], atol=1e-4)


def test_attention_weights_are_those_of_the_last_layer() -> None:
    for norm in ("post", "pre"):
        decoder = TransformerDecoder(D, D, norm=norm, **SMALL).eval()
        encoded = TransformerEncoder(D, **SMALL).eval()(torch.randn(B, S, D), SOURCE_MASK)
        memory, y, seen = decoder.memory(encoded), torch.randn(B, T, D), {}
        weights = decoder.attention_weights(y, memory)
        last = decoder.layers[-1].cross_attention.network
        last.register_forward_pre_hook(lambda _, args, seen=seen: seen.update(x=args[0]))
        decoder(y, memory)
        theirs = nn.MultiheadAttention(D, H, batch_first=True)
        copy_attention(last, theirs)
        _, expected = theirs(seen["x"], encoded.states, encoded.states, key_padding_mask=~SOURCE_MASK)
        torch.testing.assert_close(weights, expected)
        torch.testing.assert_close(weights.sum(-1), torch.ones(B, T))


@pytest.mark.parametrize("norm", ["post", "pre"])
@pytest.mark.parametrize("positions", POSITIONS)
def test_every_parameter_has_a_gradient(norm: str, positions: str) -> None:
    options = {**SMALL, "norm": norm, "positions": positions}
    encoder, decoder = TransformerEncoder(D, **options), TransformerDecoder(D, D, **options)
    features, _ = decoder(torch.randn(B, T, D), decoder.memory(encoder(torch.randn(B, S, D), SOURCE_MASK)))
    (features * torch.randn_like(features)).sum().backward()
    for name, parameter in (*encoder.named_parameters(), *decoder.named_parameters()):
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


def test_a_source_of_padding_alone_gives_no_nan() -> None:
    encoder, decoder = TransformerEncoder(D, **SMALL), TransformerDecoder(D, D, **SMALL)
    x = torch.randn(2, S, D, requires_grad=True)
    mask = torch.zeros(2, S, dtype=torch.bool)
    mask[0] = True
    features, _ = decoder(torch.randn(2, T, D), decoder.memory(encoder(x, mask)))
    features.sum().backward()
    assert features.isfinite().all()
    assert x.grad.isfinite().all()


def test_options() -> None:
    without = CausalTransformer(D, bias=False, **SMALL)
    assert not [name for name, _ in without.named_parameters() if name.endswith("bias")]
    assert CausalTransformer(D, max_length=9, **SMALL).max_length == 9
    assert CausalTransformer(D, positions="rotary", **SMALL).max_length is None
    plain = CausalTransformer(D, norm="post", positions="rotary", dropout=0.0, **SMALL)
    scaled = CausalTransformer(D, norm="post", positions="rotary", dropout=0.0, scale_embedding=True, **SMALL)
    scaled.load_state_dict(plain.state_dict())
    x = torch.randn(B, T, D)
    torch.testing.assert_close(plain(x * math.sqrt(D))[0], scaled(x)[0])
    moved = copy.deepcopy(plain).double()
    torch.testing.assert_close(moved(x.double())[0], plain(x)[0].double(), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("layers", 0),
        ("heads", 7),
        ("feed_forward", 0),
        ("dropout", 1.0),
        ("attention_dropout", -0.1),
        ("feed_forward_dropout", 2.0),
        ("norm", "middle"),
        ("positions", "none"),
        ("max_length", 0),
        ("activation", "swish"),
        ("initialisation", "zeros"),
    ],
)
def test_a_wrong_option_is_named(option: str, value: object) -> None:
    with pytest.raises(UsageError, match=f"^{option} = {value}; accepted: "):
        CausalTransformer(D, **{**SMALL, option: value})


def test_initialisation() -> None:
    width, layers = 256, 3
    gpt = CausalTransformer(width, layers=layers, heads=4, feed_forward=4 * width)
    for layer in gpt.layers:
        for module in (layer.self_attention.network.qkv, layer.feed_forward.network.hidden):
            assert module.weight.std().item() == pytest.approx(0.02, rel=0.03)
        for module in (layer.self_attention.network.output, layer.feed_forward.network.output):
            assert module.weight.std().item() == pytest.approx(0.02 / math.sqrt(2 * layers), rel=0.03)
            assert module.bias.abs().max() == 0
    vaswani = TransformerEncoder(width, layers=1, heads=4, feed_forward=4 * width)
    for module in vaswani.modules():
        if isinstance(module, nn.Linear):
            bound = math.sqrt(6 / (module.in_features + module.out_features))
            assert module.weight.abs().max().item() == pytest.approx(bound, rel=0.01)
            assert module.bias.abs().max() == 0


def test_dropout() -> None:
    x, p = torch.randn(301, 333, requires_grad=True), 0.3
    y = dropout(x, p)
    kept = y != 0
    deviation = math.sqrt(p * (1 - p) / x.numel())
    assert kept.float().mean().item() == pytest.approx(1 - p, abs=5 * deviation)
    for lane in range(4):  # four elements share a random number
        share = kept.flatten()[lane::4].float()
        assert share.mean().item() == pytest.approx(1 - p, abs=10 * deviation)
    assert torch.corrcoef(kept.flatten()[: 300 * 332].view(-1, 4).T.float()).fill_diagonal_(0).abs().max() < 0.03
    torch.testing.assert_close(y[kept], x[kept] / (1 - p), atol=1e-4, rtol=1e-4)
    y.sum().backward()
    torch.testing.assert_close(x.grad, kept / (1 - p), atol=1e-4, rtol=1e-4)
    assert dropout(x, p, training=False) is x
    torch.manual_seed(3)
    first = dropout(x, p)
    torch.manual_seed(3)
    assert torch.equal(first, dropout(x, p))
    assert dropout(x.detach().bfloat16(), p).dtype == torch.bfloat16
