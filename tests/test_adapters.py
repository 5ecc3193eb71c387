import copy
import json
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import safetensors
import safetensors.torch
import seisbench.models as sbm
import torch
from torch import nn

from pipeline.config import Compute, Pick
from pipeline.errors import ConfigError
from pipeline.models import adapter_file, adapters, lean, picker, weights
from pipeline.models.adapters import METHODS, Base, Recipe, attach
from pipeline.models.native import eqtransformer, phasenet
from pipeline.models.phaseno import PhaseNO
from tests.adapter_cases import Mixed, filled, hashes, outputs

MERGEABLE = [method for method in METHODS if method != "adapter"]
BASE = Base("phasenet/original", "ab" * 32)
MODELS = {
    "PhaseNet": lambda: sbm.PhaseNet(phases="NPS"),
    "EQTransformer": lambda: sbm.EQTransformer(original_compatible="conservative"),  # its cells are SeisBench's own
    "EQTransformer original": lambda: sbm.EQTransformer(lstm_blocks=2, original_compatible="non-conservative"),
    "Mixed": Mixed,
}
ALL = ("PhaseNet", "EQTransformer")


def made(name):
    """A network with random weights and batch norms that do something, and an input."""
    torch.manual_seed(0)
    model = MODELS[name]()
    for part in model.modules():
        if isinstance(part, nn.BatchNorm1d):
            part.running_mean.normal_(0, 0.1)
            part.running_var.uniform_(0.5, 2)
    return model.eval(), torch.randn(2, 3, getattr(model, "in_samples", 41))


def answer(model, x):
    with torch.no_grad():
        return torch.stack(list(outputs(model(x))))


def trained(adapted, x, steps=2):
    """After some steps of an optimizer, in training mode."""
    adapted.train()
    optimizer = torch.optim.Adam(adapted.trainable().values(), lr=1e-2)
    for _ in range(steps):
        optimizer.zero_grad()
        sum(part.square().sum() for part in outputs(adapted.model(x))).backward()
        optimizer.step()
    adapted.train(False)


# --- before, while and after training -------------------------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", ALL)
def test_before_training_nothing_changes(name, method):
    model, x = made(name)
    before = answer(model, x)
    adapted = attach(model, Recipe(method))
    assert torch.equal(answer(model, x), before)
    adapted.remove()
    assert torch.equal(answer(model, x), before)


def test_batch_norms_of_seisbench_move_if_nobody_stops_them():
    """What the next test is about."""
    model, x = made("PhaseNet")
    names = [name for name, _ in model.named_buffers()]
    before = hashes(model, names)
    model.train()
    model(x)
    assert hashes(model, names) != before


@pytest.mark.parametrize("method", [method for method in METHODS if method != "frozen"])
@pytest.mark.parametrize("name", ALL)
def test_training_leaves_the_base_as_it_is(name, method):
    model, x = made(name)
    names = [name for name, _ in (*model.named_parameters(), *model.named_buffers())]
    before, answered = hashes(model, names), answer(model, x)
    adapted = attach(model, Recipe(method))
    ours = adapters.frozen_digests(model, adapted)
    assert set(ours) == set(names)
    started = adapted.state()
    trained(adapted, x)
    assert hashes(model, names) == before
    assert adapters.frozen_digests(model, adapted) == ours
    now = adapted.state()
    still = {name for name, value in started.items() if torch.equal(value, now[name])}
    assert {part.rpartition(".")[0].rpartition(".")[2] for part in still} <= {"ba"}  # it cancels in the attention
    assert not torch.equal(answer(model, x), answered)
    moved = {name for name in now if "running" in name}
    assert bool(moved) == (method == "full")
    adapted.remove()
    assert torch.equal(answer(model, x), answered)


def test_dropout_works_while_training():
    model, x = made("EQTransformer")
    attach(model, Recipe("lora", targets=("pick_convs",)))
    model.train()
    assert not torch.equal(answer(model, x), answer(model, x))
    assert all(not part.training for part in model.modules() if isinstance(part, nn.BatchNorm1d))
    model.eval()
    assert not any(part.training for part in model.modules())


def test_only_what_is_trained_wants_a_gradient():
    model, _ = made("PhaseNet")
    adapted = attach(model, Recipe("lora"))
    wanting = {id(value) for value in model.parameters() if value.requires_grad}
    assert wanting == {id(value) for value in adapted.trainable().values()}
    adapted.remove()
    assert all(value.requires_grad for value in model.parameters())


def test_batch_norms_move_with_full_alone_and_are_merged():
    model, x = made("PhaseNet")
    mean = model.in_bn.running_mean.clone()
    adapted = attach(model, Recipe("full"))
    trained(adapted, x, steps=1)
    live = model.in_bn.running_mean
    assert not torch.equal(live, mean)
    assert model.in_bn.num_batches_tracked == 1
    adapted.merge()
    assert torch.equal(model.in_bn.running_mean, live)
    adapted.unmerge()
    adapted.remove()
    assert torch.equal(model.in_bn.running_mean, mean)


# --- merging --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", MERGEABLE)
@pytest.mark.parametrize("name", MODELS)
def test_merged_is_a_plain_network_that_answers_the_same(name, method):
    model, x = made(name)
    model, x = model.double(), x.double()
    targets = ("last",) if (name, method) == ("Mixed", "head") else ()
    plain, classes = model.state_dict(), [type(part) for part in model.modules()]
    plain = {key: value.clone() for key, value in plain.items()}
    adapted = filled(attach(model, Recipe(method, rank=3, targets=targets)))
    live = answer(model, x)
    adapted.merge()
    assert [type(part) for part in model.modules()] == classes
    assert list(model.state_dict()) == list(plain)
    assert (answer(model, x) - live).abs().max() <= 1e-12
    untouched = adapters.frozen_digests(model, adapted)
    assert (set(untouched) == set(plain)) == (method == "frozen")
    assert all(torch.equal(model.state_dict()[name], plain[name]) for name in untouched)
    adapted.unmerge()
    assert (answer(model, x) - live).abs().max() <= 1e-15 * live.abs().max() * 100
    adapted.remove()
    assert all(torch.equal(value, plain[key]) for key, value in model.state_dict().items())
    assert [type(part) for part in model.modules()] == classes


def test_merging_in_single_precision_rounds_once():
    model, _ = made("PhaseNet")
    adapted = filled(attach(model, Recipe("lora")))
    weight, state = model.inc.weight.double(), adapted.state()
    a, b = state["inc.lora_a"].double(), state["inc.lora_b"].double()
    adapted.merge()
    exact = weight + 2 * torch.einsum("or,rik->oik", b[:, :, 0], a)
    assert torch.equal(model.inc.weight, exact.float())


def test_a_transposed_convolution_by_its_definition():
    """Of an impulse, by hand: y[o, s t + d k - p] = sum over r of B[o, r] A[0, r, k]."""
    torch.manual_seed(0)
    layer = nn.ConvTranspose1d(1, 2, 3, stride=2, padding=1, dilation=2, bias=False).double()
    nn.init.zeros_(layer.weight)
    net = nn.Sequential(layer)
    adapted = filled(attach(net, Recipe("lora", rank=2, alpha=3.0)))
    state, x = adapted.state(), torch.zeros(1, 1, 5, dtype=torch.float64)
    x[0, 0, 2] = 1
    y = torch.zeros(2, 11, dtype=torch.float64)
    for k in range(3):
        y[:, 2 * 2 + 2 * k - 1] = 1.5 * state["0.lora_b"][:, :, 0] @ state["0.lora_a"][0, :, k]
    assert torch.allclose(net(x)[0], y, atol=1e-15)


def test_kernels_take_a_merged_network_and_never_a_live_one():
    for name, covers in (("PhaseNet", phasenet.covers), ("EQTransformer", eqtransformer.covers)):
        model, _ = made(name)
        assert covers(model)
        assert lean.covers(model, (1, 2))
        for method in METHODS:
            adapted = attach(model, Recipe(method))
            assert not covers(model)
            assert not lean.covers(model, (1, 2))
            if adapted.mergeable:
                adapted.merge()
                assert covers(model)
                assert lean.covers(model, (1, 2))
                adapted.unmerge()
            adapted.remove()


def test_bottlenecks_cannot_be_merged_and_run_on_seisbenchs_network():
    model, _ = made("PhaseNet")
    plain = copy.deepcopy(model)
    adapted = filled(attach(model, Recipe("adapter")))
    with pytest.raises(ConfigError, match="cannot be merged: use the network as it is"):
        adapted.merge()
    engine = picker.engine_of(model, Pick(), Compute())
    assert type(engine.network).__name__ == "SeisBench"
    samples, windows = torch.randn(3, 6000), np.array([[0, 3001], [2000, 3001]])
    given = engine.network.answers(samples, windows, "fp32")
    with torch.no_grad():
        first = model(model.annotate_batch_pre(samples[None, [0, 1, 2], :3001], {}))[0]
    rows = [list(model.labels).index(phase) for phase in "PS"]
    assert torch.allclose(given[0], first[rows], atol=1e-6)
    without = picker.engine_of(plain, Pick(), Compute(engine="seisbench")).network.answers(samples, windows, "fp32")
    assert (given - without).abs().max() > 1e-3


def test_a_bottleneck_by_its_definition():
    model, x = made("EQTransformer")
    answers = {}
    block = model.transformer_d0
    note = lambda name: lambda layer, args, out: answers.update({name: out[0].clone()})  # noqa: E731
    block.register_forward_hook(note("plain"))
    adapted = filled(attach(model, Recipe("adapter", targets=("transformer_d0",), bottleneck=5)))
    block.register_forward_hook(note("changed"))
    answer(model, x)
    d, b, u, c = (adapted.state()[f"transformer_d0.{n}"] for n in ("down_weight", "down_bias", "up_weight", "up_bias"))
    assert d.shape == (5, 16)
    rows = answers["plain"].transpose(1, 2)
    expected = rows + (rows @ d.T + b).relu() @ u.T + c
    assert torch.allclose(answers["changed"].transpose(1, 2), expected, atol=1e-5)


# --- numbers of parameters, starts, targets -------------------------------------------------------------------------


def test_shares_are_those_of_the_paper():
    shares = attach(PhaseNO(), Recipe("lora", rank=8)).shares()
    assert (shares.adapter, shares.base, shares.total) == (84_640, 2_364_914, 2_449_554)
    assert (round(100 * shares.of_base, 3), round(100 * shares.of_total, 3)) == (3.579, 3.455)
    assert str(shares) == ("84,640 parameters: 3.579% of the base's 2,364,914, 3.455% of 2,449,554 with the adapter")


def test_shares_by_hand():
    model, _ = made("PhaseNet")
    count = lambda method, **kw: attach(copy.deepcopy(model), Recipe(method, **kw)).shares()  # noqa: E731
    assert count("head").adapter == 3 * 8 + 3
    assert count("head").total == count("head").base == 268_443
    assert count("lora", rank=4, targets=("inc",)).adapter == 4 * (3 * 7 + 8)
    assert count("lora", rank=4, targets=("up_branch.0.0",)).adapter == 4 * (128 * 7 + 64)
    assert count("adapter", bottleneck=2, targets=("in_bn",)).adapter == 2 * 8 + 2 + 8 * 2 + 8
    norms = sum(part.num_features for part in model.modules() if isinstance(part, nn.BatchNorm1d))
    assert count("norm-bias").adapter == 2 * norms + 8 + 3  # the convolutions inside have no biases
    assert count("full").of_base == count("full").of_total == 1
    assert count("frozen").adapter == 0


def test_the_start_depends_on_seed_and_name_alone():
    model, _ = made("PhaseNet")
    start = lambda **kw: attach(copy.deepcopy(model), Recipe("lora", **kw)).state()  # noqa: E731
    everything = start(seed=3)
    torch.manual_seed(99)
    alone = start(seed=3, targets=("up_branch.0.0", "inc"))
    assert all(torch.equal(value, everything[name]) for name, value in alone.items())
    assert not torch.equal(start(seed=4)["inc.lora_a"], everything["inc.lora_a"])
    assert not torch.equal(everything["down_branch.0.0.lora_a"], everything["down_branch.0.2.lora_a"])  # of one shape
    a = everything["down_branch.4.0.lora_a"]  # (8, 64, 7): an even distribution between ± 1 / sqrt(64 * 7)
    bound = (64 * 7) ** -0.5
    assert bound * 0.99 < a.abs().max() <= bound
    assert abs(a.std() / (bound / 3**0.5) - 1) < 0.05
    assert not any(value.any() for name, value in everything.items() if name.endswith("lora_b"))


@pytest.mark.parametrize("name", weights.CLASSES)
def test_every_class_of_picker_has_defaults(name):
    torch.manual_seed(0)
    model = getattr(sbm, name)(**({"phases": "PSN"} if "Transformer" not in name and name != "EQTP" else {})).eval()
    for method in METHODS:
        adapted = attach(model, Recipe(method))
        assert (adapted.shares().adapter > 0) == (method != "frozen")
        adapted.remove()


def test_default_targets_of_attentions_and_recurrences():
    model, _ = made("EQTransformer original")
    sites = {name.rpartition(".")[0] for name in attach(model, Recipe("lora")).trainable()}
    assert {"transformer_d.attention.Wx", "pick_attentions.1.Wt", "pick_lstms.0.weight_hh_l0"} <= sites
    assert {"bi_lstm_stack.members.1.lstm.cell_b.weight_ih", "transformer_d0.ff.lin1", "encoder.convs.0"} <= sites
    assert not any(site.endswith((".Wa", "gamma", "bias_ih")) for site in sites)


def test_bottlenecks_are_after_whole_blocks():
    model, _ = made("EQTransformer original")
    sites = {name.rpartition(".")[0] for name in attach(model, Recipe("adapter")).trainable()}
    residual, recurrent = (
        (f"res_cnn_stack.members.{n}" for n in range(7)),
        (f"bi_lstm_stack.members.{n}" for n in (0, 1)),
    )
    assert sites == {*residual, *recurrent, "transformer_d0", "transformer_d"}


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ({"method": "lore"}, "method 'lore' is none of frozen, head, lora"),
        ({"method": "lora", "rank": 0}, "rank 0"),
        ({"method": "lora", "alpha": float("inf")}, "alpha inf"),
        ({"method": "lora", "targets": ["a"]}, "targets"),
        ({"method": "full", "targets": ("inc",)}, "takes no targets"),
        ({"method": "adapter", "bottleneck": True}, "bottleneck True"),
        ({"method": "head", "seed": -1}, "seed -1"),
    ],
)
def test_a_wrong_recipe_is_refused(values, text):
    with pytest.raises(ConfigError, match=text):
        Recipe(**values)


def test_targets_that_fit_nothing_are_refused():
    model, _ = made("PhaseNet")
    with pytest.raises(ConfigError, match=r"target 'encoder.\*' fits nothing in PhaseNet that 'lora' can adapt: inc, "):
        attach(model, Recipe("lora", targets=("inc", "encoder.*")))
    with pytest.raises(ConfigError, match="do not know where Mixed takes 'head': give targets, for example 'last'"):
        attach(Mixed(), Recipe("head"))
    with pytest.raises(ConfigError, match="fits nothing"):  # grouped convolutions have no low-rank form here
        attach(nn.Sequential(nn.Conv1d(4, 4, 3, groups=2)), Recipe("lora"))
    attach(model, Recipe("lora"))
    with pytest.raises(ConfigError, match="has an adapter already"):
        attach(model, Recipe("head"))


# --- copies, threads, 16 bits ---------------------------------------------------------------------------------------


def test_a_copy_has_an_adapter_of_its_own():
    model, x = made("EQTransformer original")
    adapted = filled(attach(model, Recipe("lora")))
    other = copy.deepcopy(adapted)
    before = answer(model, x)
    filled(other, seed=2)
    assert torch.equal(answer(model, x), before)
    assert not torch.equal(answer(other.model, x), before)
    live = answer(other.model, x)
    other.merge()
    assert torch.allclose(answer(other.model, x), live, atol=1e-4)
    assert torch.equal(answer(model, x), before)


def test_threads_do_not_meet():
    model, x = made("Mixed")
    filled(attach(model, Recipe("lora")))
    torch.set_num_threads(1)
    alone = answer(model, x)
    with ThreadPoolExecutor(4) as pool:
        assert all(torch.equal(each, alone) for each in pool.map(lambda _: answer(model, x), range(40)))


@pytest.mark.parametrize("method", ["lora", "adapter", "norm-bias"])
def test_training_in_16_bits(method):
    model, x = made("EQTransformer original")
    adapted = attach(model, Recipe(method))
    adapted.train()
    with torch.autocast("cpu", torch.bfloat16):
        sum(part.float().square().sum() for part in model(x)).backward()
    slopes = [value.grad for value in adapted.trainable().values() if value.grad is not None]
    assert {slope.dtype for slope in slopes} == {torch.float32}
    assert all(torch.isfinite(slope).all() for slope in slopes)
    assert any(slope.any() for slope in slopes)


# --- files ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS)
def test_saved_and_read_again(tmp_path, method):
    model, x = made("PhaseNet")
    plain = copy.deepcopy(model)
    recipe = Recipe(method, rank=5, alpha=7.0, bottleneck=3, seed=11)
    adapted = filled(attach(model, recipe))
    path, about = tmp_path / "a.safetensors", {"trained on": ["OX", 2024], "f1": 0.5}
    adapters.save(path, adapted, BASE, about)
    saved = adapters.read(path)
    assert (saved.base, saved.recipe, saved.about) == (BASE, recipe, about)
    with safetensors.safe_open(path, "pt") as file:  # theirs, not ours
        assert set(file.keys()) == set(adapted.state())
        assert json.loads(file.metadata()["recipe"])["rank"] == 5
        assert file.metadata()["base_sha256"] == BASE.sha256
    assert method == "full" or path.stat().st_size < 200_000 < 4 * 268_443
    again = adapters.apply(plain, path, BASE.sha256)
    assert torch.equal(answer(plain, x), answer(model, x))
    assert again.recipe == recipe
    data = path.read_bytes()
    adapters.save(path, again, BASE, about)
    assert path.read_bytes() == data


def test_complex_weights_are_saved(tmp_path):
    torch.manual_seed(0)
    adapted = filled(attach(PhaseNO(modes=6, width=4), Recipe("full")))
    adapters.save(tmp_path / "a.safetensors", adapted, BASE, {})
    other = adapters.apply(PhaseNO(modes=6, width=4), tmp_path / "a.safetensors", BASE)
    assert all(torch.equal(value, other.state()[name]) for name, value in adapted.state().items())
    assert any(value.is_complex() for value in other.state().values())


@pytest.fixture
def file(tmp_path):
    """An adapter's file, and what it was made of."""
    model, _ = made("PhaseNet")
    adapters.save(tmp_path / "a.safetensors", filled(attach(model, Recipe("lora", targets=("inc",)))), BASE, {"a": 1})
    return tmp_path / "a.safetensors"


def test_another_base_is_refused(file):
    model, x = made("PhaseNet")
    before = answer(model, x)
    with pytest.raises(ConfigError, match=f"(?s)a.safetensors.*{'ab' * 32}.*seisbench:x.*{'cd' * 32}.*as its base"):
        adapters.apply(model, file, Base("seisbench:x", "cd" * 32))
    with pytest.raises(ConfigError, match="converted anew: bring those back"):
        adapters.apply(model, file, Base("phasenet/original", "cd" * 32))
    assert torch.equal(answer(model, x), before)


def test_every_changed_byte_is_noticed(file):
    data = file.read_bytes()
    length = 8 + int.from_bytes(data[:8], "little")
    places = [*range(0, length, 7), *range(length, len(data), 41), len(data) - 1]
    refused = 0
    for place in places:
        file.write_bytes(data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :])
        try:
            adapter_file.read(file)
        except ConfigError as e:
            refused += str(file) in str(e)
    padding = len(data[:length].rstrip())
    spaces = [place for place in places if padding <= place < length]  # behind the header's text: no meaning
    assert refused >= len(places) - len(spaces)
    for end in (0, 7, 100, len(data) - 1):
        file.write_bytes(data[:end])
        with pytest.raises(ConfigError, match="no adapter file"):
            adapter_file.read(file)


def rewritten(file, texts=None, tensors=None):
    """The file with other texts or tensors, and a seal that fits them: made by somebody who knows how."""
    with safetensors.safe_open(file, "pt") as old:
        said, held = dict(old.metadata()), {name: old.get_tensor(name) for name in old.keys()}  # noqa: SIM118
    said = {key: value for key, value in said.items() if key != "sha256"} | (texts or {})
    held = held | (tensors or {})
    held = {name: value for name, value in held.items() if value is not None}
    _, entries, values = adapter_file._parts(safetensors.torch.save(held))
    seal = adapter_file._seal(said, entries, values)
    file.write_bytes(safetensors.torch.save(held, said | {"sha256": seal}))


def test_other_versions_and_files_are_refused(file):
    rewritten(file, {"version": "2"})
    with pytest.raises(ConfigError, match="an adapter file of version '2', this program reads '1'"):
        adapters.read(file)
    rewritten(file, {"version": "1", "recipe": json.dumps({"method": "dora"})})
    with pytest.raises(ConfigError, match=r"a.safetensors: adapter recipe: fields \['method'\]"):
        adapters.read(file)
    safetensors.torch.save_file({"x": torch.zeros(1)}, file)
    with pytest.raises(ConfigError, match="no adapter of this program"):
        adapters.read(file)
    torch.save({"x": torch.zeros(1)}, file)  # a pickle is not even opened
    with pytest.raises(ConfigError, match="no adapter file"):
        adapters.read(file)
    file.unlink()
    with pytest.raises(ConfigError, match=r"a.safetensors is not there: No such file.*orcolat adapt"):
        adapters.read(file)


@pytest.mark.parametrize(
    ("tensors", "text"),
    [
        ({"inc.lora_b": torch.zeros(9, 8, 1)}, r"'inc.lora_b' is torch.float32 \(9, 8, 1\), expected .* \(8, 8, 1\)"),
        ({"inc.lora_b": torch.zeros(8, 8, 1, dtype=torch.int64)}, "int64"),
        ({"inc.lora_b": None}, "lacks 'inc.lora_b'"),
        ({"out.lora_b": torch.zeros(3, 8, 1)}, "has 'out.lora_b'"),
    ],
)
def test_tensors_that_do_not_fit_are_refused(file, tensors, text):
    rewritten(file, tensors=tensors)
    model, x = made("PhaseNet")
    before = answer(model, x)
    with pytest.raises(ConfigError, match=rf"(?s)a.safetensors.*{text}"):
        adapters.apply(model, file, BASE)
    assert torch.equal(answer(model, x), before)
    assert type(model) is sbm.PhaseNet


def test_a_diverged_training_is_not_saved(tmp_path):
    model, _ = made("PhaseNet")
    adapted = attach(model, Recipe("head"))
    with torch.no_grad():
        adapted.trainable()["out.bias.value"][0] = float("nan")
    with pytest.raises(ConfigError, match=r"out\.bias\.value is not finite: the training diverged"):
        adapters.save(tmp_path / "a.safetensors", adapted, BASE, {})
    with pytest.raises(ConfigError, match="must be JSON"):
        adapters.save(tmp_path / "a.safetensors", attach(Mixed(), Recipe("lora")), BASE, {"when": object()})
    assert not list(tmp_path.iterdir())
