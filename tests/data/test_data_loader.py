"""The loaders: position, resume, grouping, and one batch for any number of processes, noise and augmentation included."""

import itertools

import pytest
import torch

from lit_gen.core.errors import UsageError
from lit_gen.core.images import ImageBatch
from lit_gen.data.loader import EvalLoader, Split, TrainLoader
from lit_gen.data.plan import EvalPlan, TrainPlan
from lit_gen.data.stores import MemoryStore
from lit_gen.data.transforms import BatchTransform

N = 45


@pytest.fixture(scope="module")
def split() -> Split:
    images = torch.randint(256, (N, 3, 6, 6), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    store = MemoryStore(images)
    label = torch.arange(N)  # the label names the example
    return Split(store, store, torch.arange(N), label, label)


def loader(split: Split, group=None, world=1, rank=0, size=8, transform=BatchTransform(), **options) -> TrainLoader:  # noqa: B008
    return TrainLoader(split, TrainPlan(N, size, world, rank), transform, group, **options)


def flat(items) -> list[ImageBatch]:
    return [b for item in items for b in (item if isinstance(item, list) else [item])]


def labels(items) -> list[list[int]]:
    return [batch.label.tolist() for batch in flat(items)]


def assert_equal(a: list[ImageBatch], b: list[ImageBatch]) -> None:
    assert len(a) == len(b)
    for x, y in zip(a, b):
        assert x.key == y.key
        assert torch.equal(x.label, y.label)
        assert torch.equal(x.image, y.image)


def test_images_belong_to_their_labels(split: Split):
    for batch in loader(split, transform=None):
        assert torch.equal(batch.image, split.images.images[batch.label])


@pytest.mark.parametrize(
    "transform",
    [
        BatchTransform(symmetric=True, flip=True, crop=2),
        BatchTransform(binarize="dynamic", flip=True),
        BatchTransform(dequantize=True, crop=1),
    ],
)
@pytest.mark.parametrize("world", [2, 3])
def test_ranks_together_see_what_one_process_sees(split: Split, transform: BatchTransform, world: int):
    whole = list(loader(split, size=6 * world, transform=transform))
    parts = [list(loader(split, world=world, rank=r, size=6, transform=transform)) for r in range(world)]
    for step, batch in enumerate(whole):
        assert torch.equal(torch.cat([p[step].label for p in parts]), batch.label)
        assert torch.equal(torch.cat([p[step].image for p in parts]), batch.image)


@pytest.mark.parametrize("group", [None, 1, 2, 3, 5, 50])
@pytest.mark.parametrize("taken", [0, 1, 2, 3])
def test_resume_continues_with_the_next_unseen_batch(split: Split, group: int | None, taken: int):
    full = loader(split, group)
    epochs = [flat(full) for _ in range(3)]
    taken = min(taken, len(full))
    first = loader(split, group, epoch=1)
    iterator = iter(first)
    seen = flat(next(iterator) for _ in range(taken))
    resumed = loader(split, group)
    resumed.load_state_dict(first.state_dict())
    expected = epochs[1][len(seen) :] or epochs[2]  # at the end of an epoch the next one begins
    assert_equal(seen, epochs[1][: len(seen)])
    assert_equal(flat(resumed), expected)
    following = 2 if len(seen) < len(epochs[1]) else 3
    assert_equal(flat(resumed), flat(loader(split, group, epoch=following)))


def test_a_checkpoint_taken_before_the_fetched_batch_is_used_gives_it_again(split: Split):
    first = loader(split)
    iterator = iter(first)
    batches = [next(iterator) for _ in range(3)]
    state = first.state_dict()
    state["batch"] -= 1
    resumed = loader(split)
    resumed.load_state_dict(state)
    assert_equal([next(iter(resumed))], batches[2:])


def test_an_iterator_that_is_not_used_leaves_the_position_alone(split: Split):
    one = loader(split)
    iter(one)
    assert_equal(list(one), list(loader(split)))
    iter(one)
    iter(one)
    assert_equal(list(one), list(loader(split, epoch=1)))


def test_a_limited_epoch_ends_at_its_limit(split: Split):
    limited = loader(split, stop=2)
    assert labels(limited) == labels(loader(split))[:2]
    resumed = loader(split, stop=2)
    resumed.load_state_dict(limited.state_dict())
    assert labels(resumed) == labels(loader(split, epoch=1))[:2]


@pytest.mark.parametrize("group", [1, 2, 4])
def test_groups_are_consecutive_batches(split: Split, group: int):
    grouped = list(loader(split, group))
    assert len(grouped) == len(loader(split, group)) == -(-len(loader(split)) // group)
    assert all(isinstance(item, list) and 1 <= len(item) <= group for item in grouped)
    assert_equal(flat(grouped), list(loader(split)))


def test_resume_with_another_batch_size_is_refused_in_mid_epoch(split: Split):
    first = loader(split)
    next(iter(first))
    with pytest.raises(UsageError, match="mid-epoch") as caught:
        loader(split, size=16).load_state_dict(first.state_dict())
    assert "\n" not in str(caught.value)
    list(itertools.islice(first, 100))
    loader(split, size=16).load_state_dict({**first.state_dict(), "batch": 0})  # between epochs it takes effect


def test_resume_with_other_processes_but_the_same_global_batch(split: Split):
    first = loader(split, size=8)
    iterator = iter(first)
    next(iterator)
    halves = [loader(split, size=4, world=2, rank=r) for r in range(2)]
    for half in halves:
        half.load_state_dict(first.state_dict())
    assert labels(iterator) == [a + b for a, b in zip(*map(labels, halves))]


def test_evaluation_batches_repeat_and_do_not_depend_on_the_processes(split: Split):
    transform = BatchTransform(binarize="dynamic")
    one = EvalLoader(split, EvalPlan(N, 8, "val"), transform)
    assert_equal(list(one), list(one))
    ranks = [list(EvalLoader(split, EvalPlan(N, 8, "val", 2, r), transform)) for r in range(2)]
    dealt = [b for pair in itertools.zip_longest(*ranks) for b in pair if b is not None]
    assert_equal(dealt, list(one))


def test_loading_leaves_the_number_of_threads_alone(split: Split):
    before = torch.get_num_threads()
    torch.set_num_threads(before + 1)
    try:
        for _ in loader(split):
            assert torch.get_num_threads() == before + 1
        assert torch.get_num_threads() == before + 1
    finally:
        torch.set_num_threads(before)


def test_loading_draws_nothing_from_the_global_generator(split: Split):
    before = torch.get_rng_state()
    list(loader(split, transform=BatchTransform(binarize="dynamic", flip=True, crop=1)))
    assert torch.equal(torch.get_rng_state(), before)
