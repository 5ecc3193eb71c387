"""Training: stopped anywhere it ends at the same bits; the best epoch is kept; losses are those of the papers."""

import copy
import math
from dataclasses import replace

import numpy as np
import pytest
import seisbench.models as sbm
import torch
from torch import nn

from pipeline.errors import ConfigError
from pipeline.maths.targets import targets
from pipeline.models import objectives
from pipeline.models.adapters import Recipe, attach, frozen_digests
from pipeline.models.phaseno import PhaseNO
from pipeline.models.training import History, Settings, train
from tests.adapter_cases import hashes

FEW = Settings(learning_rate=1e-2, batch=4, epochs=6, patience=6, weight_decay=1e-3)
METHODS = ("lora", "adapter", "norm-bias", "full")
FIVE = [1.0, 0.9, 0.95, 0.8, 0.85]


class Net(nn.Module):
    """(n, 3, samples) to (n, 3, samples); it drops out and has a norm with statistics."""

    def __init__(self):
        super().__init__()
        self.first, self.norm = nn.Conv1d(3, 8, 5, padding="same"), nn.BatchNorm1d(8)
        self.drop, self.last = nn.Dropout(0.3), nn.Conv1d(8, 3, 3, padding="same")

    def forward(self, x):
        return self.last(self.drop(self.norm(self.first(x)).relu()))


class Noise:
    """Examples out of nothing: 10 records in an order of the generator's, 5 to validate."""

    def __init__(self, scale=1.0):
        rng = np.random.default_rng(0)
        self.x = (scale * rng.standard_normal((15, 3, 40))).astype(np.float32)
        self.y = (np.roll(self.x, 1, axis=2) * 0.5).astype(np.float32)

    def training(self, rng, batch):
        order = rng.permutation(10)
        for first in range(0, 10, batch):
            yield self.x[order[first : first + batch]], self.y[order[first : first + batch]]

    def validation(self, batch):
        yield self.x[10:], self.y[10:]


class Told(Noise):
    """Its validation losses are those of a list, whatever the network says: before training, then by epoch."""

    def __init__(self, losses):
        super().__init__()
        self.losses = iter(losses)

    def validation(self, batch):
        yield np.zeros((1, 3, 40), np.float32), np.full((1, 3, 40), next(self.losses), np.float32)


def fresh(method="lora", seed=0):
    torch.manual_seed(5)
    net = Net()
    with torch.no_grad():
        net.norm.running_var.mul_(2)
    recipe = Recipe(method, rank=2, seed=seed, targets=("first",) if method == "adapter" else ())
    return attach(net, recipe)


def squared(adapted):
    return lambda x, y: (adapted.model(x) - y).square().mean()


def as_told(adapted):
    """The mean of the answers for `Told`'s validation record; else a loss that moves the weights."""

    def loss(x, y):
        return y.mean() if not x.any() else squared(adapted)(x, y)

    return loss


def run(adapted, path, settings=FEW, examples=None, stopped=lambda: False, loss=squared):
    return train(adapted, loss(adapted), examples or Noise(), settings, path / "checkpoint.safetensors", stopped)


def bits(adapted):
    return {name: value.numpy().tobytes() for name, value in adapted.state().items()}


def after(epochs):
    """``stopped`` that says so after this many epochs."""
    asked = iter(range(epochs + 1))
    return lambda: next(asked) == epochs


@pytest.mark.parametrize("method", METHODS)
def test_a_training_that_is_killed_after_any_epoch_ends_at_the_same_bits(tmp_path, method):
    """Each piece in a new object, with torch's generator left somewhere else."""
    whole = fresh(method)
    history = run(whole, tmp_path / "whole")
    assert history.epochs == FEW.epochs
    for k in range(FEW.epochs):
        folder = tmp_path / str(k)
        assert run(fresh(method), folder, stopped=after(k)) is None
        torch.manual_seed(1000 + k)
        torch.rand(k + 1)
        again = fresh(method)
        assert run(again, folder) == history
        assert bits(again) == bits(whole)
    assert bits(whole) != bits(fresh(method))


def test_killed_after_each_single_epoch_it_ends_at_the_same_bits_too(tmp_path):
    settings = replace(FEW, schedule="plateau", clip=0.1)
    whole = fresh()
    history = run(whole, tmp_path / "whole", settings)
    ends = [run(fresh(), tmp_path / "cut", settings, stopped=after(1)) for _ in range(FEW.epochs)]
    assert ends == [None] * (FEW.epochs - 1) + [history]
    again = fresh()
    assert run(again, tmp_path / "cut", settings, stopped=lambda: pytest.fail("it is done")) == history
    assert bits(again) == bits(whole)


def test_another_seed_is_another_training(tmp_path):
    """Another order and other drop-outs, from the same first numbers."""
    one, other = fresh(), fresh()
    run(one, tmp_path / "1")
    run(other, tmp_path / "2", replace(FEW, seed=1))
    assert bits(one) != bits(other)


@pytest.mark.parametrize(
    ("losses", "patience", "best", "epochs"),
    [
        (FIVE, 9, 2, 4),  # the smallest is the third epoch's
        (FIVE, 2, 2, 4),  # two without a better one never come before it ends
        (FIVE, 1, 0, 2),  # one without a better one: the second epoch ends it
        ([1.0, 1.1, 1.2, 1.3, 1.4], 3, -1, 3),  # never better than untrained
        ([1.0, 0.5, 0.5, 0.5 - 1e-9, 0.5], 9, 0, 4),  # of equals the first
    ],
)
def test_the_epoch_with_the_smallest_validation_loss_is_kept(tmp_path, losses, patience, best, epochs):
    settings = replace(FEW, epochs=len(losses) - 1, patience=patience)
    adapted = fresh()
    history = run(adapted, tmp_path / "all", settings, Told(losses), loss=as_told)
    assert (history.best, history.epochs) == (best, epochs)
    assert history.best_loss == pytest.approx(losses[best + 1])
    short = fresh()  # of the best epoch and no further
    if best >= 0:
        run(short, tmp_path / "short", replace(settings, epochs=best + 1), Told([9, *range(8, 0, -1)]), loss=as_told)
    assert bits(adapted) == bits(short)


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        ("constant", [1, 1, 1, 1]),
        ("cosine", [1, (1 + math.sqrt(0.5)) / 2, 0.5, (1 - math.sqrt(0.5)) / 2]),
        ("plateau", [1, 1, 1, 1]),
    ],
)
def test_the_rate_follows_its_schedule(tmp_path, schedule, expected):
    history = run(fresh(), tmp_path, replace(FEW, schedule=schedule, epochs=4))
    assert history.rate == pytest.approx([1e-2 * each for each in expected])


def test_on_a_plateau_the_rate_halves(tmp_path):
    """After five epochs without a better one; a better one begins the count again."""
    losses = [1.0, 0.9, *[0.9] * 5, 0.9, 0.8, *[0.8] * 5, 0.8]
    settings = replace(FEW, schedule="plateau", epochs=14, patience=99)
    history = run(fresh(), tmp_path, settings, Told(losses), loss=as_told)
    assert history.rate == pytest.approx([1e-2] * 6 + [5e-3] * 7 + [2.5e-3])


def test_a_loss_that_is_not_finite_is_refused_and_not_kept(tmp_path):
    with pytest.raises(ConfigError, match=r"epoch 1: loss nan.*lower adapt\.learning_rate"):
        run(fresh(), tmp_path, loss=lambda adapted: lambda x, y: squared(adapted)(x, y) * math.nan)
    with pytest.raises(ConfigError, match=r"epoch 3: .*validation inf"):
        run(fresh(), tmp_path, examples=Told([1, 0.9, 0.8, math.inf]), loss=as_told)
    adapted = fresh()
    assert run(adapted, tmp_path).epochs == FEW.epochs  # goes on after the second epoch, which is whole


def test_without_records_it_says_so(tmp_path):
    class Nothing(Noise):
        def training(self, rng, batch):
            return iter(())

    with pytest.raises(ConfigError, match="over 0 records"):
        run(fresh(), tmp_path, examples=Nothing())
    with pytest.raises(ConfigError, match="'frozen' has nothing to train"):
        run(attach(Net(), Recipe("frozen")), tmp_path)


@pytest.mark.parametrize(
    ("method", "settings"),
    [("norm-bias", FEW), ("lora", replace(FEW, learning_rate=2e-2)), ("lora", replace(FEW, seed=3))],
)
def test_a_checkpoint_of_another_recipe_is_refused(tmp_path, method, settings):
    run(fresh("lora"), tmp_path, stopped=after(2))
    with pytest.raises(ConfigError, match="a checkpoint of another recipe"):
        run(fresh(method), tmp_path, settings)


def test_a_checkpoint_of_another_network_is_refused(tmp_path):
    """The same layers with other numbers: an adapter that was trained beside others."""
    run(fresh("lora"), tmp_path, stopped=after(2))
    other = fresh("lora")
    with torch.no_grad():
        other.model.last.bias.add_(1)
    with pytest.raises(ConfigError, match="a checkpoint of another"):
        run(other, tmp_path)


def test_a_damaged_checkpoint_is_refused_by_name(tmp_path):
    (tmp_path / "checkpoint.safetensors").write_bytes(b"no tensors")
    with pytest.raises(ConfigError, match=r"checkpoint\.safetensors: not a readable checkpoint"):
        run(fresh(), tmp_path)


@pytest.mark.parametrize("method", [method for method in METHODS if method != "full"])
def test_frozen_tensors_are_the_same_bytes_afterwards(tmp_path, method):
    """By SHA-256 of our own and of the test's, with the adapter beside them and after it is taken out."""
    adapted, names = fresh(method), list(Net().state_dict())
    ours = frozen_digests(adapted.model)
    adapted.remove()
    before = hashes(adapted.model, names)
    adapted = fresh(method)
    run(adapted, tmp_path)
    assert frozen_digests(adapted.model) == ours
    assert len(ours) == len(names)
    adapted.remove()
    assert hashes(adapted.model, names) == before


def test_a_network_that_comes_in_training_mode_is_validated_as_it_will_be_used(tmp_path):
    """Nothing drops out, and no statistics move, before the first epoch."""
    ready, raw = fresh("full"), fresh("full")
    ready.train(False)
    raw.train(True)
    histories = [run(each, tmp_path / str(k)) for k, each in enumerate((ready, raw))]
    assert histories[0] == histories[1]
    assert bits(ready) == bits(raw)


def test_a_parameter_that_nothing_uses_does_not_stop_it(tmp_path):
    class Spare(Net):
        def __init__(self):
            super().__init__()
            self.spare = nn.Linear(3, 3)

    torch.manual_seed(1)
    net = Spare()
    whole, cut, again = (attach(copy.deepcopy(net), Recipe("full")) for _ in range(3))
    history = run(whole, tmp_path / "whole")
    assert run(cut, tmp_path / "cut", stopped=after(2)) is None
    assert run(again, tmp_path / "cut") == history
    assert bits(again) == bits(whole)


def test_complex_numbers_are_kept_and_taken_up_again(tmp_path):
    """PhaseNO has them."""

    def given():
        torch.manual_seed(2)
        return attach(PhaseNO(modes=3, width=2, samples=60, lengths=(20, 10)), Recipe("full"))

    class Short(Noise):
        def __init__(self):
            super().__init__()
            self.x = np.tile(self.x, (1, 1, 2))[..., :60]
            self.y = self.x[:, :2]

    def loss(adapted):
        places, edges = torch.zeros(16, 2), torch.zeros((2, 0), dtype=torch.int64)
        return lambda x, y: (adapted.model(x, places[: len(x)], edges) - y).square().mean()

    settings = replace(FEW, epochs=3)
    whole, cut, again = given(), given(), given()
    history = run(whole, tmp_path / "whole", settings, Short(), loss=loss)
    assert run(cut, tmp_path / "cut", settings, Short(), after(2), loss) is None
    assert run(again, tmp_path / "cut", settings, Short(), loss=loss) == history
    assert bits(again) == bits(whole)


def records(n, samples):
    rng = np.random.default_rng(3)
    x = rng.standard_normal((n, 3, samples)) * [[[1], [5], [20]]] + 7
    p, s = rng.uniform(100, samples / 2, n), rng.uniform(samples / 2, samples - 500, n)
    return x.astype(np.float32), p, s


def test_the_loss_of_phasenet_is_the_cross_entropy_of_its_paper():
    """Zhu & Beroza 2019: -sum of p log q over the classes, here in NumPy from the network's own probabilities."""
    torch.manual_seed(0)
    model = sbm.PhaseNet(phases="NPS", norm="std").eval()
    x, p, s = records(2, 3001)
    y = targets(objectives.labels(model), p, s, 3001, 10)
    order = [{"Z": 0, "N": 1, "E": 2}[component] for component in model.component_order]
    fed = x[:, order].astype(np.float64)
    fed = (fed - fed.mean(axis=2, keepdims=True)) / fed.std(axis=2, keepdims=True)
    with torch.no_grad():
        q = model(torch.from_numpy(fed.astype(np.float32))).double().numpy()
        found = float(objectives.objective(model)(torch.from_numpy(x), torch.from_numpy(y)))
    assert found == pytest.approx(float(-(y * np.log(q)).sum(axis=1).mean()), rel=1e-3)


def test_the_loss_of_eqtransformer_is_the_weighted_binary_one_of_its_paper():
    """Mousavi et al. 2020: 0.05, 0.40 and 0.55 of the binary cross entropies of detection, P and S."""
    torch.manual_seed(0)
    model = sbm.EQTransformer(lstm_blocks=1).eval()
    x, p, s = records(2, 6000)
    y = targets(objectives.labels(model), p, s, 6000, 20)
    with torch.no_grad():
        fed = model.annotate_batch_pre(torch.from_numpy(x), model.default_args)
        answers = [answer.double().numpy() for answer in model(fed)]
        found = float(objectives.objective(model)(torch.from_numpy(x), torch.from_numpy(y)))
    expected = 0.0
    for weight, name, q in zip((0.05, 0.40, 0.55), ("D", "P", "S"), answers, strict=True):
        truth = y[:, [label[0] for label in objectives.labels(model)].index(name)]
        expected += weight * float(-(truth * np.log(q) + (1 - truth) * np.log(1 - q)).mean())
    assert found == pytest.approx(expected, rel=1e-4)


def test_a_network_that_labels_something_else_is_refused():
    with pytest.raises(ConfigError, match="cannot be trained here"):
        objectives.objective(sbm.GPD(phases="PSN"))


def test_the_history_counts_from_the_best_epoch():
    assert History(1.0, [], [0.9, 0.8, 0.85], [], 1).stale() == 1
    assert History(1.0).best_loss == 1.0
