"""The language model: one probability however it is computed, tied weights, gradients, carried states, checkpoints."""

from __future__ import annotations

from functools import partial
from itertools import product
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from lit_gen.core import sharded
from lit_gen.core.errors import UsageError
from lit_gen.core.random import BatchKey
from lit_gen.core.text import BOS, EOS, PAD, StreamBatch, TextSpec, Vocabulary
from lit_gen.text.feed_forward_features import FeedForwardFeatures
from lit_gen.text.language_model import LanguageModel
from lit_gen.text.prefix_average import PrefixAverage
from lit_gen.text.recurrent_features import RecurrentFeatures
from lit_gen.text.transformer import CausalTransformer

SIZE, DIM, ROWS = 9, 6, 3
FEATURES = {
    "average": PrefixAverage,
    "attention": partial(PrefixAverage, weighting="attention", hidden=4),
    "feed_forward": partial(FeedForwardFeatures, order=4, hidden=5),
    "lstm": partial(RecurrentFeatures, cell="lstm", hidden=7, layers=2),
    "gpt": partial(CausalTransformer, layers=2, heads=2, feed_forward=8, max_length=24, dropout=0.0),
}
CARRYING = [name for name in FEATURES if name != "gpt"]
every_kind = pytest.mark.parametrize("kind", FEATURES)
every_carrying_kind = pytest.mark.parametrize("kind", CARRYING)


def make(kind: str, size: int = SIZE, **options) -> LanguageModel:
    """A small model with weights large enough to matter."""
    model = LanguageModel(FEATURES[kind], embedding_dim=DIM, **options)
    model.build(TextSpec(Vocabulary(size, "{}", "character")))
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.3 * torch.randn(p.shape))
    return model


def text(time: int, rows: int = ROWS) -> Tensor:
    return torch.randint(4, SIZE, (rows, time))


def batch(tokens: Tensor, begins: bool = True, start: int = 0, total: int | None = None) -> StreamBatch:
    """What is read and what follows, of tokens ``[R, T + 1]``."""
    rows = len(tokens)
    key = BatchKey(5, start, rows if total is None else total)
    return StreamBatch(tokens[:, :-1], tokens[:, 1:], key, begins, tokens[:, 1:].numel())


# ---------------------------------------------------------------- probabilities


@every_kind
def test_probabilities_of_all_texts_sum_to_one(kind: str) -> None:
    model = make(kind, size=5)
    every = torch.tensor([(BOS, *rest) for rest in product(range(1, 5), repeat=3)])
    pads = torch.tensor([(BOS, *rest) for rest in product(range(5), repeat=3)])
    log_p = torch.stack(
        [model.advance(pads[:, :-1])[0].log_softmax(-1)[:, t].gather(1, pads[:, t + 1 : t + 2]) for t in range(3)]
    )
    assert log_p.sum(0).exp().sum().item() == pytest.approx(1, abs=1e-5)
    # and what log_prob says of those that padding could not be mistaken for
    expected = torch.stack(
        [model.advance(row[None, :-1])[0].log_softmax(-1)[0, range(3), row[1:]].sum() for row in every]
    )
    torch.testing.assert_close(model.log_prob(every), expected.double(), atol=1e-5, rtol=1e-5)


@every_kind
@pytest.mark.parametrize("cuts", [[1] * 12, [5, 7]])
def test_cached_logits_are_those_of_the_whole(kind: str, cuts: list[int]) -> None:
    model, tokens = make(kind).eval(), text(12)
    expected, _ = model.advance(tokens)
    cache, pieces = None, []
    for piece in tokens.split(cuts, dim=1):
        logits, cache = model.advance(piece, None, cache)
        pieces.append(logits)
    torch.testing.assert_close(torch.cat(pieces, 1), expected, atol=1e-5, rtol=1e-5)
    assert expected.dtype == torch.float32


@every_kind
@pytest.mark.parametrize("training", [True, False])
def test_a_future_token_changes_nothing_before_it(kind: str, training: bool) -> None:
    model, tokens = make(kind).train(training), text(12)
    other = tokens.clone()
    other[:, 7] = 4 + (tokens[:, 7] - 3) % (SIZE - 4)
    before, after = model.advance(tokens)[0], model.advance(other)[0]
    torch.testing.assert_close(before[:, :7], after[:, :7], atol=1e-6, rtol=0)
    assert not torch.allclose(before[:, 7], after[:, 7])


@every_kind
def test_nats_leave_padding_out(kind: str) -> None:
    model, tokens = make(kind), text(8)
    target = text(8)
    target[0, 5:] = PAD
    target[2] = PAD
    nats = model.nats(tokens, target)
    logits = model.eval().advance(tokens)[0]
    for r, t in product(range(ROWS), range(8)):
        y = target[r, t]
        assert nats[r, t].item() == (pytest.approx(-logits[r, t].log_softmax(0)[y].item(), abs=1e-5) if y else 0.0)
    score, correct = model.score(batch(tokens)._replace(input=tokens, target=target))
    torch.testing.assert_close(score, nats[target != PAD])
    assert torch.equal(correct, (logits.argmax(-1) == target)[target != PAD])


def test_smoothing_and_dropout_are_training_only() -> None:
    plain, smooth = make("lstm"), make("lstm", label_smoothing=0.3, dropout=0.5)
    smooth.load_state_dict(plain.state_dict())
    tokens = text(8)
    assert not torch.allclose(plain.loss_sum(batch(tokens)), smooth.loss_sum(batch(tokens)))
    torch.testing.assert_close(plain.log_prob(tokens), smooth.log_prob(tokens))
    smooth.eval()
    expected = plain.score(batch(tokens))[0]
    torch.testing.assert_close(smooth.score(batch(tokens))[0], expected)


def test_smoothed_loss_is_that_of_torch() -> None:
    model, tokens = make("feed_forward", label_smoothing=0.2), text(8)
    logits = model.advance(tokens[:, :-1])[0].flatten(0, 1)
    expected = nn.functional.cross_entropy(logits, tokens[:, 1:].flatten(), reduction="sum", label_smoothing=0.2)
    torch.testing.assert_close(model.loss_sum(batch(tokens)), expected)


# ---------------------------------------------------------------- weights


@pytest.mark.parametrize("kind", ["lstm", "gpt"])
def test_tied_weights_are_one_tensor_and_stay_so(kind: str, tmp_path: Path) -> None:
    model = make(kind, tie_weights=True)
    assert model.output.weight is model.embedding.weight
    assert isinstance(model.projection, nn.Linear) == (kind == "lstm")  # 7 wide, embeddings are 6
    assert sum(p is model.embedding.weight for p in model.parameters()) == 1

    checkpoint = {
        "state_dict": model.state_dict(),
        "hyper_parameters": dict(model.hparams),
        "pytorch-lightning_version": "2.6",
    }
    model.on_save_checkpoint(checkpoint)
    torch.save(checkpoint, tmp_path / "model.ckpt")
    loaded = LanguageModel.load_from_checkpoint(tmp_path / "model.ckpt", weights_only=False).eval()
    assert loaded.output.weight is loaded.embedding.weight
    tokens = text(8)
    assert torch.equal(loaded.advance(tokens)[0], model.eval().advance(tokens)[0])
    # moved to another kind of number, they are one still
    assert loaded.double().output.weight is loaded.embedding.weight


def test_tied_gradient_is_the_sum_of_both_uses() -> None:
    tied, free = make("gpt", tie_weights=True), make("gpt")
    free.load_state_dict({**tied.state_dict(), "output.weight": tied.embedding.weight})
    for model in (tied, free):
        model.loss_sum(batch(torch.randint(4, SIZE, (2, 8), generator=torch.Generator().manual_seed(1)))).backward()
    torch.testing.assert_close(tied.embedding.weight.grad, free.embedding.weight.grad + free.output.weight.grad)


def test_starts_like_gpt2() -> None:
    model = LanguageModel(
        partial(CausalTransformer, layers=2, heads=4, feed_forward=256), 64, tie_weights=True, init_std=0.02
    )
    model.build(TextSpec(Vocabulary(500, "{}", "character")))
    for name, p in model.named_parameters():
        if p.dim() == 2:
            assert 0.005 < p.std() < 0.025, name
        elif "bias" in name:
            assert not p.any(), name
    assert model.embedding.weight.std().item() == pytest.approx(0.02, rel=0.05)


@pytest.mark.parametrize("kind", ["gpt", "lstm"])
def test_weight_decay_spares_what_is_no_matrix(kind: str) -> None:
    decaying = partial(torch.optim.AdamW, lr=0.1, weight_decay=0.5)
    model = make(kind, decay_matrices_only=True, optimizer=decaying)
    (optimizer,), _ = model.configure_optimizers()
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    for p in model.parameters():
        p.grad = torch.zeros_like(p)
    optimizer.step()
    for name, p in model.named_parameters():
        torch.testing.assert_close(p, before[name] * (0.95 if p.dim() >= 2 else 1.0), msg=name)
    assert sum(len(group["params"]) for group in optimizer.param_groups) == len(before)


@every_kind
def test_accumulated_gradients_are_those_of_the_large_batch(kind: str) -> None:
    """Whatever number of tokens each part has."""
    model, tokens = make(kind), text(10, rows=6)
    target = tokens[:, 1:].clone()
    target[1, 3:] = PAD
    target[4, 1:] = PAD
    whole = batch(tokens)._replace(target=target)
    count = int((target != PAD).sum())
    parameters = list(model.parameters())
    expected = torch.autograd.grad(model.loss_sum(whole) / count, parameters)
    parts = [whole._replace(input=whole.input[rows], target=target[rows]) for rows in ([0, 1, 2, 3], [4], [5])]
    grads = [torch.autograd.grad(model.loss_sum(part) / count, parameters) for part in parts]
    for mine, theirs in zip(expected, zip(*grads)):
        torch.testing.assert_close(sum(theirs), mine, atol=1e-6, rtol=1e-5)


# ---------------------------------------------------------------- carried state


@every_carrying_kind
def test_carried_windows_are_one_long_text(kind: str) -> None:
    model, tokens = make(kind, carry_state=True).eval(), text(25)
    expected = model.nats(tokens[:, :-1], tokens[:, 1:])
    for window in (4, 6, 24):
        model.on_validation_epoch_start()
        windows = [batch(tokens[:, t : t + window + 1], begins=t == 0) for t in range(0, 24, window)]
        nats = torch.cat([model.score(each)[0].view(ROWS, -1) for each in windows], 1)
        torch.testing.assert_close(nats, expected, atol=1e-5, rtol=1e-5)
        losses = sum(model.loss_sum(each) for each in windows)
        torch.testing.assert_close(losses, expected.sum(), atol=1e-4, rtol=1e-5)


@every_kind
def test_without_carrying_each_window_begins_anew(kind: str) -> None:
    model, tokens = make(kind), text(25)
    first, second = batch(tokens[:, :13]), batch(tokens[:, 12:], begins=False)
    alone = model.loss_sum(second)
    model.loss_sum(first)
    torch.testing.assert_close(model.loss_sum(second), alone)


@every_carrying_kind
def test_a_beginning_forgets(kind: str) -> None:
    model, first, second = make(kind, carry_state=True), batch(text(9)), batch(text(9))
    alone = model.loss_sum(second)
    model.loss_sum(first)
    assert torch.equal(model.loss_sum(second), alone)
    assert not torch.allclose(model.loss_sum(second._replace(begins=False)), alone)


@every_carrying_kind
def test_gradients_stop_at_the_window(kind: str) -> None:
    model = make(kind, carry_state=True)
    first, second = torch.full((ROWS, 7), 5), torch.full((ROWS, 7), 7)
    model.loss_sum(batch(first))
    model.loss_sum(batch(second, begins=False)).backward()
    gradient = model.embedding.weight.grad
    assert not gradient[5].any()
    assert gradient[7].any()


@every_carrying_kind
def test_evaluation_leaves_the_training_state_alone(kind: str) -> None:
    model, tokens = make(kind, carry_state=True), text(17)
    straight = make(kind, carry_state=True)
    straight.load_state_dict(model.state_dict())
    for each in (model, straight):
        each.loss_sum(batch(tokens[:, :9]))
    model.on_validation_epoch_start()
    model.score(batch(text(6)))
    model.log_prob(text(6))
    second = batch(tokens[:, 8:], begins=False)
    assert torch.equal(model.loss_sum(second), straight.loss_sum(second))


@every_carrying_kind
def test_a_resumed_model_goes_on_from_the_state(kind: str) -> None:
    model, tokens = make(kind, carry_state=True), text(17)
    model.loss_sum(batch(tokens[:, :9]))
    checkpoint: dict = {}
    model.on_save_checkpoint(checkpoint)
    resumed = make(kind, carry_state=True)
    resumed.load_state_dict(model.state_dict())
    resumed.on_load_checkpoint(checkpoint)
    second = batch(tokens[:, 8:], begins=False)
    # a checkpoint taken before the resumed run's first update has the state too
    again: dict = {}
    resumed.on_save_checkpoint(again)
    assert all(map(torch.equal, again["carried_state"], checkpoint["carried_state"]))
    assert torch.equal(model.loss_sum(second), resumed.loss_sum(second))


@pytest.mark.parametrize("world", [2, 3])
@pytest.mark.parametrize("kind", ["lstm", "feed_forward"])
def test_the_checkpoint_has_the_streams_of_all_processes(
    kind: str, world: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Saved by some processes, loaded by others: the same states; processes are played one after the other."""
    tokens, rows = text(17, rows=6), 6 // world
    alone, checkpoint = make(kind, carry_state=True), {}
    alone.loss_sum(batch(tokens[:, :9]))
    expected = alone.training_state.whole()

    def become(rank: int) -> None:
        monkeypatch.setattr(sharded, "rank", lambda: rank)
        monkeypatch.setattr(sharded, "world_size", lambda: world)

    models, sent = [], []
    for rank in range(world):
        become(rank)
        model = make(kind, carry_state=True)
        model.load_state_dict(alone.state_dict())
        mine = slice(rank * rows, (rank + 1) * rows)
        model.loss_sum(batch(tokens[mine, :9], start=rank * rows, total=6))
        monkeypatch.setattr(sharded.dist, "all_gather", lambda parts, part: sent.append(part))
        model.training_state.whole()
        models.append(model)

    queue = iter([sent[i :: len(sent) // world] for i in range(len(sent) // world)])

    def all_gather(parts: list[Tensor], part: Tensor) -> None:
        for mine, theirs in zip(parts, next(queue)):
            mine.copy_(theirs)

    monkeypatch.setattr(sharded.dist, "all_gather", all_gather)
    become(0)
    models[0].on_save_checkpoint(checkpoint)
    for mine, theirs in zip(checkpoint["carried_state"], expected, strict=True):
        torch.testing.assert_close(mine, theirs)

    total = alone.loss_sum(batch(tokens[:, 8:], begins=False))
    parts = []
    for rank in range(world):
        models[rank].on_load_checkpoint(checkpoint)
        mine = slice(rank * rows, (rank + 1) * rows)
        parts.append(models[rank].loss_sum(batch(tokens[mine, 8:], begins=False, start=rank * rows, total=6)))
    torch.testing.assert_close(sum(parts), total)


# ---------------------------------------------------------------- sampling


@every_kind
def test_samples_are_the_generators(kind: str) -> None:
    model = make(kind)
    first, again, other = (model.sample(4, 30, generator=torch.Generator().manual_seed(s)) for s in (1, 1, 2))
    assert first.shape == (4, 30)
    assert first.dtype == torch.int64
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert not torch.isin(first, torch.tensor([PAD, BOS])).any()


@every_kind
def test_samples_follow_the_probabilities(kind: str) -> None:
    """Frequencies of the second token after a prompt, against the probabilities of all first ones."""
    model, prompt = make(kind, size=6), [4, 5, 4]
    after = model.eval().advance(torch.tensor([prompt]))[0][0, -1].log_softmax(-1)
    drawn = model.sample(4000, 2, prompt, generator=torch.Generator().manual_seed(2))
    probability = torch.zeros(6)
    for token in range(EOS, 6):
        share = after[EOS:].softmax(0)[token - EOS]
        following = model.advance(torch.tensor([[*prompt, token]]))[0][0, -1, EOS:].softmax(0)
        probability[EOS:] += share * following
    found = torch.bincount(drawn[:, 1], minlength=6) / len(drawn)
    torch.testing.assert_close(found, probability, atol=0.03, rtol=0)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"embedding_dim": 0}, "embedding_dim = 0"),
        ({"dropout": 1.0}, "dropout = 1.0"),
        ({"init_std": 0.0}, "init_std = 0.0"),
        ({"carry_state": True}, "carry_state = True"),
        ({"accumulate": 0}, "accumulate = 0"),
    ],
)
def test_mistakes_are_named(options: dict, named: str) -> None:
    with pytest.raises(UsageError, match=named):
        LanguageModel(**options).build(TextSpec(Vocabulary(SIZE, "{}", "character")))


def test_sentence_pairs_are_no_running_text() -> None:
    words = Vocabulary(SIZE, "{}", "word")
    with pytest.raises(UsageError, match="sentence pairs"):
        LanguageModel().build(TextSpec(words, source=words))
