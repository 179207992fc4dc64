"""The deep belief network's distributions, bound and fine-tuning against tables of all states and slow references."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch import distributions as dist

from lit_gen.core.errors import UsageError
from lit_gen.core.images import UNLABELLED
from lit_gen.energy.belief_bound import conditional_log_prob, unnormalised_bound
from lit_gen.energy.belief_classifier import BeliefClassifier
from lit_gen.energy.belief_network import BeliefNetwork
from lit_gen.energy.labels import class_logits
from lit_gen.energy.likelihood import exact_log_z
from lit_gen.energy.units import Bernoulli, Gaussian, Softmax
from lit_gen.energy.wake_sleep import Phases, up_down, wake_sleep_loss
from tests.energy.enumerated_machine import ALPHA, SURE, chi_square, row_noise
from tests.energy.small_belief_network import bernoulli, binary, index, make_network, write_out

DRAWS = 4000
NETWORKS = {
    "two_layers": ([3, 4], 0, False),
    "three_layers": ([3, 2, 3], 0, False),
    "untied": ([3, 2, 3], 0, True),
    "labelled": ([3, 4], 3, False),
}
every_network = pytest.mark.parametrize("name", NETWORKS)


def network_of(name: str) -> BeliefNetwork:
    hidden, classes, untied = NETWORKS[name]
    return make_network(4, hidden, classes, untied)


def mean_bound(network: BeliefNetwork, v: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard error of the sampled bound of each row."""
    log_z = exact_log_z(network.top)
    draws = unnormalised_bound(network, v.repeat(DRAWS, 1), row_noise(DRAWS * len(v))).view(DRAWS, -1) - log_z
    return draws.mean(0), draws.std(0) / DRAWS**0.5


# ---------------------------------------------------------------- distributions


@every_network
def test_upward_pass_draws_from_the_recognition_distribution(name: str) -> None:
    network = network_of(name)
    exact = write_out(network)
    v = exact.states[0][5].expand(DRAWS, -1)
    states = network.recognise(v, row_noise(DRAWS))
    assert len(states) == network.depth
    q = exact.up[0][5]
    for layer, table in enumerate(exact.up):
        if layer:
            q = (q.unsqueeze(-1) + table).logsumexp(0)
        counts = index(states[layer + 1]).bincount(minlength=len(q)).double()
        assert chi_square(counts, q.exp()) > ALPHA


@every_network
def test_downward_pass_draws_from_the_generative_conditionals(name: str) -> None:
    network = network_of(name)
    exact = write_out(network)
    x = exact.states[-1][3].expand(DRAWS, -1)
    mean, *states = network.generate(x, row_noise(DRAWS))
    p = torch.zeros(len(exact.states[-1]), dtype=torch.float64).log()
    p[3] = 0.0
    for layer in reversed(range(len(exact.down))):
        p = (p.unsqueeze(-1) + exact.down[layer]).logsumexp(0)
        if layer:
            counts = index(states[layer - 1]).bincount(minlength=len(p)).double()
            assert chi_square(counts, p.exp()) > ALPHA
    # E[v | x_1] is a mean, so that its own mean is that of v
    error = mean.std(0) / DRAWS**0.5
    assert ((mean.mean(0) - p.exp() @ exact.states[0]).abs() < 5 * error + 1e-12).all()
    table = exact.down[0][index(states[0])].exp() @ exact.states[0]
    torch.testing.assert_close(mean, table)


def test_label_posterior_equals_enumeration() -> None:
    network = make_network(4, [3, 4], classes=3)
    exact = write_out(network)
    found = class_logits(network.top, exact.states[-1])
    torch.testing.assert_close(found - exact.log_z, exact.labelled)
    torch.testing.assert_close(-network.free_energy(exact.states[-1]) - exact.log_z, exact.prior)


def test_unknown_labels_are_replaced_by_their_posterior() -> None:
    network = make_network(4, [3, 4], classes=3)
    exact = write_out(network)
    x, label = exact.states[-1][:3], torch.tensor([2, UNLABELLED, 0])
    believed = (exact.labelled - exact.prior.unsqueeze(-1)).exp()[:3]
    expected = torch.stack([F.one_hot(label[0], 3), believed[1], F.one_hot(label[2], 3)])
    torch.testing.assert_close(network.split(network.join(x, label))[1], expected)
    torch.testing.assert_close(network.split(network.join(x))[1], believed)
    torch.testing.assert_close(network.split(network.join(x, label))[0], x)


def test_a_transposed_layer_changes_nothing() -> None:
    """Hinton et al. 2006, section 4: with its weights tied to those below, the new layer is a complementary prior."""
    network = make_network(4, [3, 4])
    network.grow(1)
    before = write_out(network).log_prob()
    network.grow(2)
    assert (write_out(network).log_prob() - before).abs().max() > 0.1
    network.begin_top(torch.full((3,), 0.3, dtype=torch.float64), 0.01, transposed=True)
    after = write_out(network)
    torch.testing.assert_close(after.log_prob(), before)
    # the recognition distribution is then the posterior, and the bound is tight
    torch.testing.assert_close(after.bound(), before)
    mean, error = mean_bound(network, after.states[0])
    assert ((mean - before).abs() < 5 * error).all()


def test_transposed_weights_of_another_size_are_refused() -> None:
    network = make_network(4, [3, 5])
    with pytest.raises(UsageError, match="5; accepted: 4, as many as two layers below"):
        network.begin_top(torch.full((3,), 0.5).double(), 0.01, transposed=True)


def test_new_layer_fits_the_mean_activity() -> None:
    network = make_network(4, [3, 4], classes=2)
    mean = torch.tensor([0.2, 0.5, 0.9, 0.7, 0.3], dtype=torch.float64)
    network.begin_top(mean, 1e-9)
    at_rest = [part.mean_(torch.zeros(part.dim).double()) for part in network.top.visible.parts]
    torch.testing.assert_close(torch.cat(at_rest), mean)
    torch.testing.assert_close(network.top_mean, mean)


# ---------------------------------------------------------------- bound


@every_network
def test_bound_is_below_the_likelihood_by_the_divergence_of_q(name: str) -> None:
    network = network_of(name)
    exact = write_out(network)
    log_p = exact.log_prob()
    assert log_p.exp().sum().item() == pytest.approx(1.0)
    # the posterior of the layers between, from the joint: a different way round than WrittenOut.bound
    if len(exact.up) == 1:
        posterior = (exact.down[0] + exact.prior.unsqueeze(-1)).T - log_p.unsqueeze(-1)
        q = exact.up[0]
    else:
        joint = exact.down[0].T.unsqueeze(-1) + exact.down[1].T.unsqueeze(0) + exact.prior
        posterior = (joint - log_p.view(-1, 1, 1)).flatten(1)
        q = (exact.up[0].unsqueeze(-1) + exact.up[1]).flatten(1)
    gap = (q.exp() * (q - posterior)).sum(-1)
    assert gap.min() > 0.01
    torch.testing.assert_close(exact.bound(), log_p - gap)
    mean, error = mean_bound(network, exact.states[0])
    assert ((mean - exact.bound()).abs() < 5 * error).all()
    assert (mean + 5 * error < log_p).any(), "the sample is too small to tell the bound from the likelihood"


def test_conditional_probabilities_are_those_of_torch() -> None:
    field = torch.randn(5, 6, dtype=torch.float64)
    gaussian, softmax, binary_units = Gaussian(6, sigma=0.7).double(), Softmax(2, 3).double(), Bernoulli(6).double()
    for parameter in (gaussian.mu, softmax.bias, binary_units.bias):
        nn.init.normal_(parameter)
    x = torch.randn(5, 6, dtype=torch.float64)
    expected = dist.Normal(gaussian.mu + 0.7 * field, 0.7).log_prob(x).sum(-1)
    torch.testing.assert_close(conditional_log_prob(gaussian, x, field), expected)
    x = (torch.rand(5, 6) < 0.5).double()
    expected = dist.Bernoulli(logits=field + binary_units.bias).log_prob(x).sum(-1)
    torch.testing.assert_close(conditional_log_prob(binary_units, x, field), expected)
    category = torch.randint(3, (5, 2))
    expected = dist.Categorical(logits=(field + softmax.bias).view(5, 2, 3)).log_prob(category).sum(-1)
    torch.testing.assert_close(
        conditional_log_prob(softmax, F.one_hot(category, 3).flatten(1).double(), field), expected
    )


def test_bound_of_grey_pixels_is_its_mean_over_binary_images() -> None:
    """log p(v | h) is linear in v, and q may be any distribution: that given the grey pixels serves all binary images."""
    network = make_network(3, [2, 3])
    exact, grey = write_out(network), torch.tensor([[0.2, 0.9, 0.4]], dtype=torch.float64)
    mean, error = mean_bound(network, grey)
    p = torch.where(exact.states[0] == 1, grey, 1 - grey).prod(-1)
    assert mean + 5 * error < (p * exact.log_prob()).sum()
    field = (grey @ network.layers[0].machine.weight + network.layers[0].machine.hidden.bias).detach()
    q = bernoulli(field, torch.zeros(2).double(), binary(2))[0]
    bound = (q.exp() * ((p * exact.down[0]).sum(-1) + exact.prior - q)).sum()
    assert (mean - bound).abs() < 5 * error


# ---------------------------------------------------------------- up-down algorithm


def delta_rules(network: BeliefNetwork, phases: Phases) -> dict[str, np.ndarray]:
    """The updates of appendix B for three hidden layers, with its names; of the top units expectations are taken."""

    def logistic(x):
        return 1 / (1 + np.exp(-x))

    values = {name: p.detach().numpy() for name, p in network.named_parameters()}
    vishid, hidpen = values["layers.0.recognition_weight"], values["layers.1.recognition_weight"]
    hidvis, penhid = values["layers.0.machine.weight"].T, values["layers.1.machine.weight"].T
    hidrecbiases, penrecbiases = values["layers.0.machine.hidden.bias"], values["layers.1.machine.hidden.bias"]
    visgenbiases, hidgenbiases = values["layers.0.machine.visible.bias"], values["layers.1.machine.visible.bias"]
    pens = penhid.shape[0]
    pentop, labtop = np.split(values["layers.2.machine.weight"], [pens])
    topbiases = values["layers.2.machine.hidden.bias"]

    data, wakehidstates, wakepenstates = (x.numpy() for x in phases.wake)
    targets = phases.wake_top.numpy()[:, pens:]
    negpenstates, neglabstates = np.split(phases.dream_top.numpy(), [pens], axis=1)
    sleepvisprobs, sleephidstates, sleeppenstates = (x.numpy() for x in phases.dream)
    numcases = len(data)

    waketop = logistic(wakepenstates @ pentop + targets @ labtop + topbiases)
    negtop = logistic(negpenstates @ pentop + neglabstates @ labtop + topbiases)
    psleeppenstates = logistic(sleephidstates @ hidpen + penrecbiases)
    psleephidstates = logistic(sleepvisprobs @ vishid + hidrecbiases)
    pvisprobs = logistic(wakehidstates @ hidvis + visgenbiases)
    phidprobs = logistic(wakepenstates @ penhid + hidgenbiases)
    d_pentop = wakepenstates.T @ waketop - negpenstates.T @ negtop
    d_labtop = targets.T @ waketop - neglabstates.T @ negtop
    updates = {
        "layers.0.machine.weight": (wakehidstates.T @ (data - pvisprobs)).T,
        "layers.0.machine.visible.bias": (data - pvisprobs).sum(0),
        "layers.1.machine.weight": (wakepenstates.T @ (wakehidstates - phidprobs)).T,
        "layers.1.machine.visible.bias": (wakehidstates - phidprobs).sum(0),
        "layers.2.machine.weight": np.concatenate([d_pentop, d_labtop]),
        "layers.2.machine.visible.parts.0.bias": (wakepenstates - negpenstates).sum(0),
        "layers.2.machine.visible.parts.1.bias": (targets - neglabstates).sum(0),
        "layers.2.machine.hidden.bias": (waketop - negtop).sum(0),
        "layers.1.recognition_weight": sleephidstates.T @ (sleeppenstates - psleeppenstates),
        "layers.1.machine.hidden.bias": (sleeppenstates - psleeppenstates).sum(0),
        "layers.0.recognition_weight": sleepvisprobs.T @ (sleephidstates - psleephidstates),
        "layers.0.machine.hidden.bias": (sleephidstates - psleephidstates).sum(0),
    }
    return {name: update / numcases for name, update in updates.items()}


def test_wake_sleep_gradient_is_that_of_the_delta_rules() -> None:
    network = make_network(5, [4, 3, 2], classes=3, untied=True)
    v = (torch.rand(7, 5) < 0.5).double()
    phases = up_down(network, v, torch.arange(7) % 3, 2, row_noise(7))
    assert not torch.equal(phases.wake_top, phases.dream_top)
    wake_sleep_loss(network, phases).backward()
    updates = delta_rules(network, phases)
    assert updates.keys() == dict(network.named_parameters()).keys()
    for name, parameter in network.named_parameters():
        torch.testing.assert_close(parameter.grad, -torch.from_numpy(updates[name]), msg=lambda m, n=name: f"{n}: {m}")


def test_phases_are_drawn_from_the_right_conditionals() -> None:
    network = make_network(4, [3, 2, 3], untied=True)
    exact = write_out(network)
    v = exact.states[0][9].expand(DRAWS, -1)
    phases = up_down(network, v, torch.zeros(DRAWS, dtype=torch.int64), 1, row_noise(DRAWS))
    torch.testing.assert_close(phases.wake[0], v)
    # the top's transition kernel, written out: x -> h -> x
    h = binary(3)
    up = torch.softmax(exact_joint(network, exact.states[-1], h), -1)
    down = torch.softmax(exact_joint(network, exact.states[-1], h), 0)
    q = (exact.up[0][9].unsqueeze(-1) + exact.up[1]).logsumexp(0).exp()
    counts = index(phases.dream_top).bincount(minlength=4).double()
    reached = q @ up @ down.T
    assert chi_square(counts, reached) > ALPHA
    assert chi_square(counts, q) < SURE
    counts = index(phases.dream[1]).bincount(minlength=8).double()
    assert chi_square(counts, reached @ exact.down[1].exp()) > ALPHA


def exact_joint(network: BeliefNetwork, x: Tensor, h: Tensor) -> Tensor:
    """-E(x, h) of the top machine, ``[S, H]``."""
    machine = network.top
    with torch.no_grad():
        return (x @ machine.visible.bias).unsqueeze(-1) + h @ machine.hidden.bias + x @ machine.weight @ h.T


def test_fine_tuning_begins_where_pre_training_ended() -> None:
    network = BeliefNetwork(Bernoulli(4), [3, 2], doubled=True)
    network.grow(2)
    nn.init.normal_(network.layers[0].machine.weight)
    v = (torch.rand(6, 4) < 0.5).float()
    tied = network.recognise(v)[-1]
    network.layers[0].untie()
    torch.testing.assert_close(network.recognise(v)[-1], tied)
    nn.init.normal_(network.layers[0].machine.weight)  # generation goes its own way
    torch.testing.assert_close(network.recognise(v)[-1], tied)


# ---------------------------------------------------------------- classifier


def test_softmax_classifier_is_a_plain_network() -> None:
    network = make_network(4, [3, 2])
    classifier = BeliefClassifier(network, 3).double()
    classifier.begin(network)
    plain = nn.Sequential(nn.Linear(4, 3), nn.Sigmoid(), nn.Linear(3, 2), nn.Sigmoid(), nn.Linear(2, 3)).double()
    with torch.no_grad():
        for linear, layer in zip((plain[0], plain[2]), network.layers):
            linear.weight.copy_(layer.machine.weight.T)
            linear.bias.copy_(layer.machine.hidden.bias)
        plain[4].load_state_dict(classifier.head.state_dict())
    x, label = torch.rand(8, 4).double(), torch.arange(8) % 3
    losses = [F.cross_entropy(model(x), label) for model in (classifier, plain)]
    for loss in losses:
        loss.backward()
    torch.testing.assert_close(*losses)
    for mine, theirs in zip(classifier.parameters(), plain.parameters()):
        torch.testing.assert_close(mine.grad, theirs.grad)
    assert all(p.grad is None for p in network.parameters()), "the generative model must be left as it is"


def test_labelled_classifier_begins_as_the_generative_model() -> None:
    network = make_network(4, [3, 4], classes=3)
    exact = write_out(network)
    classifier = BeliefClassifier(network, 3).double()
    classifier.begin(network)
    v = exact.states[0]
    x = torch.sigmoid(v @ network.layers[0].machine.weight + network.layers[0].machine.hidden.bias).detach()
    torch.testing.assert_close(classifier(v), class_logits(network.top, x))
    F.cross_entropy(classifier(v), torch.arange(16) % 3).backward()
    assert all(p.grad is not None for p in classifier.parameters() if p.requires_grad)
    assert all(p.grad is None for p in network.parameters())
