"""PhaseNO beside the authors' own numbers, its layers beside the published equations, its graph beside no graph."""

import numpy as np
import pytest
import torch
from torch import nn

from pipeline.config import Compute, Pick
from pipeline.errors import ConfigError
from pipeline.maths.filters import filtered
from pipeline.models import phaseno, phaseno_layers
from pipeline.models.network_picker import NetworkPicker
from pipeline.models.phaseno import NetworkWindow, PhaseNO, load_checkpoint
from pipeline.models.phaseno_layers import Graph, GraphLayer, stretched
from pipeline.records import NS, NetworkRecord, Waveform
from tests import phaseno_cases
from tests.phaseno_cases import edge_by_edge, known_numbers

# Logits of the authors' program (version 1.0.1, with torch_geometric) at samples 0, 750, 1500 and 2250 of
# `phaseno_cases.window()`, with the parameters of `known_numbers`: rows P and S of five stations.
AUTHORS = [
    [[0.656221, 0.600033, 0.498983, 0.409729], [-0.923560, -0.981892, -0.868593, -0.763153]],
    [[0.660285, 0.605728, 0.764052, 0.667179], [-0.889813, -0.953218, -1.055306, -0.964723]],
    [[0.642672, 0.648428, 0.451072, 0.477325], [-0.944714, -1.014006, -0.839009, -0.891105]],
    [[0.614144, 0.625828, 0.722086, 0.442216], [-0.948428, -1.020760, -1.058811, -0.880115]],
    [[0.686465, 0.576681, 0.540048, 0.635870], [-0.881806, -0.981541, -0.949923, -0.967422]],
]
SMALL = {"modes": 6, "width": 6, "samples": 300, "lengths": (80, 24)}


@pytest.fixture(autouse=True)
def _one_thread():
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def published():
    return known_numbers(PhaseNO()).eval()


@pytest.fixture
def small():
    return known_numbers(PhaseNO(**SMALL)).eval()


def small_window(stations=5, seed=0, range_km=phaseno.RANGE_KM):
    return phaseno_cases.window(stations, SMALL["samples"], seed, range_km)


@torch.no_grad()
def probabilities(network, *parts):
    return network.probabilities(phaseno.join(parts)).numpy()


def test_it_has_the_published_number_of_parameters(published):
    total = sum(each.numel() for each in published.parameters())
    assert total == 2_364_914
    linears = [part for block in published.modules() if isinstance(block, GraphLayer) for part in block.modules()]
    linears = [part for part in linears if isinstance(part, nn.Linear)]
    assert sum(isinstance(block, GraphLayer) for block in published.modules()) == 5
    assert len(linears) == 20
    lora = sum(8 * (each.in_features + each.out_features) for each in linears)
    assert lora == 84_640
    assert round(100 * lora / total, 3) == 3.579


def test_it_answers_what_the_authors_program_answers(published):
    with torch.no_grad():
        logits = published.logits(phaseno_cases.window()).numpy()
    assert logits.shape == (5, 2, 3000)
    np.testing.assert_allclose(logits[:, :, ::750], AUTHORS, rtol=0, atol=5e-6)


GRAPHS = {
    "all pairs": [(j, i) for i in range(5) for j in range(5)],
    "a chain, one hears nobody": [(0, 1), (1, 2), (2, 3), (3, 4)],
    "one edge twice, one station to itself": [(2, 0), (2, 0), (1, 0), (4, 4)],
    "no edge": [],
}


@pytest.mark.parametrize("pairs", GRAPHS.values(), ids=GRAPHS)
@pytest.mark.parametrize("changed", [False, True], ids=["plain", "with low-rank changes beside its linears"])
def test_the_graph_layer_is_the_published_one(pairs, changed):
    torch.manual_seed(1)
    layer = GraphLayer(6)
    if changed:  # as an adapter does it: beside what the linear layer answers
        for linear in [part for part in layer.modules() if isinstance(part, nn.Linear)]:
            change = torch.randn(linear.out_features, 2) @ torch.randn(2, linear.in_features)
            linear.register_forward_hook(lambda _, args, y, w=change: y + 0.1 * (args[0] @ w.to(y).T))
    x, places = torch.randn(5, 6, 40), torch.rand(5, 2)
    edges = torch.tensor(pairs, dtype=torch.int64).reshape(-1, 2).T
    graph = Graph.of(edges, 5)
    ours, naive = layer(x, places, graph), edge_by_edge(layer, x, places, edges)
    assert float((ours - naive).detach().abs().max()) <= 1e-6
    layer, x, places = layer.double(), x.double().requires_grad_(), places.double()
    ours, naive = layer(x, places, graph), edge_by_edge(layer, x, places, edges)
    assert float((ours - naive).detach().abs().max()) <= 1e-12
    wanted = [x, *layer.parameters()]
    slopes = [torch.autograd.grad(y.square().sum(), wanted, allow_unused=True) for y in (ours, naive)]
    for a, b in zip(*slopes, strict=True):
        a, b = (torch.zeros(1).double() if each is None else each for each in (a, b))
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-10)


def test_the_order_of_edges_and_the_size_of_blocks_change_nothing(monkeypatch):
    torch.manual_seed(2)
    layer, x, places = GraphLayer(6), torch.randn(7, 6, 50), torch.rand(7, 2)
    edges = phaseno.edges(places)
    whole = layer(x, places, Graph.of(edges, 7))
    assert torch.equal(whole, layer(x, places, Graph.of(edges[:, torch.randperm(edges.shape[1])], 7)))
    monkeypatch.setitem(phaseno_layers.BLOCK, "cpu", 100)
    assert torch.equal(whole, layer(x, places, Graph.of(edges, 7)))


def test_values_on_edges_never_exist_all_at_once(monkeypatch):
    monkeypatch.setitem(phaseno_layers.BLOCK, "cpu", 2000)
    stations, channels, samples = 16, 4, 40
    layer, x, places = GraphLayer(channels), torch.randn(stations, channels, samples), torch.rand(stations, 2)
    edges, gelu, bent, kept = phaseno.edges(places, None), nn.functional.gelu, [], []

    def watched(values):
        bent.append(values.numel())
        return gelu(values)

    def largest(run):
        bent.clear()
        kept.clear()
        with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t.numel()) or t, lambda t: t):
            run()
        return max(bent), max(kept)

    monkeypatch.setattr(nn.functional, "gelu", watched)
    of_stations = stations * samples * 4 * channels
    on_edges = of_stations * stations
    assert largest(lambda: edge_by_edge(layer, x, places, edges)) == (on_edges, on_edges)
    now, later = largest(lambda: layer(x, places, Graph.of(edges, stations)))
    assert later <= of_stations  # kept for the way back
    assert sorted(bent)[-2] <= 2000  # but for what the update bends of each station
    assert now == of_stations


@pytest.mark.parametrize("edges", [[[0, 1], [1, 5]], [[-1], [0]]])
def test_edges_between_stations_that_are_not_there_are_refused(edges):
    with pytest.raises(ConfigError, match="name stations"):
        Graph.of(torch.tensor(edges), 5)
    with pytest.raises(ConfigError, match="int64"):
        Graph.of(torch.tensor(edges).float(), 5)


@pytest.mark.parametrize("small_one", [True, False], ids=["small", "published"])
def test_permuting_stations_changes_nothing(small_one, published, small):
    network, window = (small, small_window(7)) if small_one else (published, phaseno_cases.window(5))
    order = torch.randperm(len(window.records), generator=torch.Generator().manual_seed(3))
    back = torch.argsort(order)
    turned = NetworkWindow(window.records[order], window.places[order], back[window.edges])
    moved = probabilities(network, turned)
    assert np.abs(moved - probabilities(network, window)[order]).max() <= 1e-6


def test_graphs_in_parts_are_what_the_parts_are(small):
    parts = [small_window(n, seed) for n, seed in ((4, 1), (1, 2), (6, 3))]
    joined = probabilities(small, *parts)
    alone = np.concatenate([probabilities(small, part) for part in parts])
    assert np.abs(joined - alone).max() <= 1e-6
    apart = phaseno_cases.window(6, SMALL["samples"], 5, range_km=5.0)
    mine = torch.tensor([0, *apart.edges[0][(apart.edges[1] == 0)].tolist()]).unique()
    assert len(mine) == 1  # the stations are so far apart that the first is a part of its own
    only = NetworkWindow(apart.records[:1], apart.places[:1], torch.zeros(2, 1, dtype=torch.int64))
    assert np.abs(probabilities(small, apart)[:1] - probabilities(small, only)).max() <= 1e-6


def test_a_station_is_heard_along_edges_and_nowhere_else(small):
    window = small_window(4, range_km=None)
    edges = torch.tensor([[0, 1, 2, 3, 0], [0, 1, 2, 3, 1]])
    before = NetworkWindow(window.records, window.places, edges)
    louder = window.records.clone()
    louder[0, :, 100:] *= 20
    change = np.abs(probabilities(small, before) - probabilities(small, NetworkWindow(louder, window.places, edges)))
    assert change[1].max() > 1e-4
    assert change[2:].max() == 0


def test_lines_are_stretched_as_torch_does():
    x = torch.randn(2, 3, 3100, generator=torch.Generator().manual_seed(4))
    for samples in (750, 3100, 200):
        expected = nn.functional.interpolate(x, size=samples, mode="linear", align_corners=True)
        torch.testing.assert_close(stretched(x, samples), expected, rtol=0, atol=1e-6)
        x = expected
    torch.testing.assert_close(
        stretched(x, 750), nn.functional.interpolate(x, size=750, mode="linear", align_corners=True), rtol=0, atol=1e-6
    )


def test_traces_are_normalised_as_the_authors_do():
    records = np.random.default_rng(5).normal(3, 50, (4, 3, 500))
    records[0, 1] = 7.0  # dead
    turned = records[:, ::-1]
    expected = (turned - turned.mean(-1, keepdims=True)) / (turned.std(-1, keepdims=True) + 1e-6) / 10
    found = phaseno.normalised(torch.from_numpy(records)).numpy()
    np.testing.assert_allclose(found, expected, atol=1e-12)
    assert (found[0, 1] == 0).all()
    valid = np.ones((4, 500), bool)
    valid[:, 300:] = False
    records[:, :, 300:] = 1e9
    part = phaseno.normalised(torch.from_numpy(records), torch.from_numpy(valid)).numpy()
    np.testing.assert_allclose(
        part[..., :300], phaseno.normalised(torch.from_numpy(records[..., :300])).numpy(), atol=1e-12
    )
    assert (part[..., 300:] == 0).all()


def test_places_and_edges_are_those_of_the_authors():
    latitude, longitude = np.array([45.8, 46.0, 46.3, 46.1]), np.array([13.0, 13.2, 13.1, 13.3])
    where = phaseno.places(latitude, longitude, (46.0, 13.1))
    np.testing.assert_allclose(where.numpy(), np.stack([(longitude - 12.1) / 2, (latitude - 45.0) / 2], 1), atol=1e-6)
    pairs = set(map(tuple, phaseno.edges(where, 30.0).T.tolist()))
    expected = {
        (j, i)
        for i in range(4)
        for j in range(4)
        if np.hypot(latitude[i] - latitude[j], longitude[i] - longitude[j]) / 2 <= 30 / 222
    }
    assert pairs == expected != {(j, i) for i in range(4) for j in range(4)}
    assert phaseno.edges(where, None).shape == (2, 16)
    assert phaseno.edges(where[:0]).shape == (2, 0)


def test_places_know_the_date_line():
    there = phaseno.places([-20.0, -20.2], [179.9, -179.9]).numpy()
    here = phaseno.places([-20.0, -20.2], [10.0, 10.2]).numpy()
    np.testing.assert_allclose(there, here, atol=1e-6)
    np.testing.assert_allclose(here.mean(0), 0.5, atol=1e-6)


def waveform(seed, n=1000, start_ns=0, components=(True, True, True), rate_hz=100.0):
    samples = np.random.default_rng(seed).normal(0, 100, (3, n)).astype(np.float32)
    samples[[not each for each in components]] = 0
    return Waveform(samples, np.ones(n, bool), start_ns, rate_hz, components)


PLACES = ([46.0, 46.1, 46.2], [13.0, 13.1, 13.0])


def scores(network, waves, latitude, longitude, range_km=phaseno.RANGE_KM, overlap=None):
    """What a picker with windows that overlap by a third, or by ``overlap``, makes of them."""
    record = NetworkRecord(tuple(waves), np.array(latitude), np.array(longitude), (46.1, 13.05), range_km)
    return NetworkPicker.from_network(network, Pick(overlap_samples=overlap), Compute(device="cpu")).scores(record)


def test_a_window_alone_is_scored_as_it_is(small):
    waves = [waveform(seed, SMALL["samples"]) for seed in range(3)]
    where = phaseno.places(*PLACES)
    found = scores(small, waves, *PLACES, overlap=0)
    records = torch.from_numpy(np.stack([filtered(each, phaseno.FILTER) for each in waves]))
    expected = probabilities(small, NetworkWindow(records, where, phaseno.edges(where)))
    for each, wanted in zip(found, expected, strict=True):
        np.testing.assert_allclose(each.probability, wanted, atol=1e-6)


def test_a_station_without_data_is_not_there_and_a_gap_does_not_count(small):
    waves = [waveform(seed, SMALL["samples"]) for seed in range(3)]
    for row, gap in ((0, slice(None)), (2, slice(150, 250))):
        waves[row].valid[gap] = False
        waves[row].samples[:, gap] = 0
    where = phaseno.places(*PLACES)
    found = scores(small, waves, *PLACES, None, overlap=0)
    assert np.isnan(found[0].probability).all()
    records, valid = (
        np.stack(each) for each in zip(*((filtered(w, phaseno.FILTER), w.valid) for w in waves[1:]), strict=True)
    )
    traces = phaseno.normalised(torch.from_numpy(records), torch.from_numpy(valid))
    with torch.no_grad():
        expected = torch.sigmoid(small(traces, where[1:], phaseno.edges(where[1:], None))).numpy()
    np.testing.assert_allclose(found[1].probability, expected[0], atol=1e-6)
    np.testing.assert_allclose(found[2].probability, np.where(waves[2].valid, expected[1], np.nan), atol=1e-6)


def test_scores_lie_on_the_time_axis_of_each_waveform_and_gaps_are_not_scored(small):
    waves = [waveform(0), waveform(1, 900, start_ns=NS // 2 + 3_000_000), waveform(2)]
    waves[2].valid[200:600] = False
    waves[2].samples[:, 200:600] = 0
    found = scores(small, waves, *PLACES, None)
    assert [(each.start_ns, each.probability.shape) for each in found] == [
        (0, (2, 1000)),
        (waves[1].start_ns, (2, 900)),
        (0, (2, 1000)),
    ]
    assert np.isfinite(found[0].probability).all()
    assert np.isfinite(found[1].probability).all()
    assert (np.isnan(found[2].probability) == ~waves[2].valid).all()
    alone = scores(small, waves[:2], *(each[:2] for each in PLACES), None)
    change = np.abs(found[0].probability - alone[0].probability).max(0)
    assert change[300:400].max() <= 1e-6  # seen by the window from 200 to 500 alone, in which the third has nothing
    assert change[700:].max() > 1e-4


def test_missing_components_are_the_vertical(small):
    one = waveform(3, components=(True, False, False))
    three = Waveform(np.repeat(one.samples[:1], 3, axis=0), one.valid, 0, 100.0, (True, True, True))
    same = [scores(small, [each], [46.0], [13.0])[0].probability for each in (one, three)]
    np.testing.assert_array_equal(*same)


def test_other_rates_lengths_and_shapes_are_refused(small):
    with pytest.raises(ConfigError, match=r"at 50\.0 Hz"):
        scores(small, [waveform(0, rate_hz=50.0)], [46.0], [13.0])
    with pytest.raises(ConfigError, match="windows of 3000 samples"):
        small.logits(phaseno_cases.window(2))
    with pytest.raises(ConfigError, match="expected"):
        NetworkWindow(torch.zeros(2, 3, 300), torch.zeros(3, 2), torch.zeros(2, 1, dtype=torch.int64))
    with pytest.raises(ConfigError, match="modes"):
        PhaseNO(modes=2)


@pytest.mark.parametrize("prefix", ["", "model.", "module.network."])
def test_a_lightning_checkpoint_is_loaded(tmp_path, small, prefix):
    state = {prefix + name: value for name, value in small.state_dict().items()}
    state[prefix + "criterion.pos_weight"] = torch.tensor([5])  # of the published file
    held = {"epoch": 19, "global_step": 1_140_000, "pytorch-lightning_version": "1.9.0", "state_dict": state}
    torch.save(held, tmp_path / "a.ckpt")
    loaded = load_checkpoint(tmp_path / "a.ckpt", PhaseNO(**SMALL))
    assert not loaded.training
    assert all(torch.equal(value, small.state_dict()[name]) for name, value in loaded.state_dict().items())
    window = small_window()
    np.testing.assert_array_equal(probabilities(loaded, window), probabilities(small, window))


def spoilt(state, case):
    state = dict(state)
    if case == "missing":
        del state["gno3.edge.fc1.bias"]
    elif case == "more":
        state["gno2.edge.fc1.bias"] = torch.zeros(3)
    elif case == "shape":
        state["fno1.w.conv.weight"] = state["fno1.w.conv.weight"][:, :, 0]
    elif case == "real":
        state["fno0.conv.weights1"] = state["fno0.conv.weights1"].real
    elif case == "nan":
        state["fno0.conv.weights1"] = state["fno0.conv.weights1"] * float("nan")
    elif case in ("whole", "sparse"):
        value = state["fc0.weight"]
        state["fc0.weight"] = value.long() if case == "whole" else value.to_sparse()
    elif case == "no tensors":
        state = {"epoch": 3}
    elif case == "no names":
        state = {0: torch.zeros(3)}
    return state


@pytest.mark.parametrize(
    ("case", "message"),
    [
        ("missing", r"no gno3\.edge\.fc1\.bias \(96,\)"),
        ("more", r"gno2\.edge\.fc1\.bias \(3,\) is no parameter"),
        ("shape", r"fno1\.w\.conv\.weight is torch\.float32 \(12, 6\), expected torch\.float32 \(12, 6, 1\)"),
        ("real", r"fno0\.conv\.weights1 is torch\.float32 \(6, 6, 6\), expected torch\.complex64"),
        ("nan", r"fno0\.conv\.weights1 holds values that are not finite"),
        ("whole", r"fc0\.weight is torch\.int64 \(6, 6\), expected torch\.float32 \(6, 6\)"),
        ("sparse", "no state dict of tensors"),
        ("no tensors", "no state dict of tensors"),
        ("no names", "no state dict of tensors"),
    ],
)
def test_a_checkpoint_that_does_not_fit_is_refused_by_name(tmp_path, small, case, message):
    path = tmp_path / "bad.ckpt"
    torch.save({"state_dict": spoilt(small.state_dict(), case)}, path)
    with pytest.raises(ConfigError, match=message) as refused:
        load_checkpoint(path, PhaseNO(**SMALL))
    assert str(path) in str(refused.value)


class Runs:
    """What a pickle can do to whoever loads it."""

    def __reduce__(self):
        return (pytest.fail, ("code of a checkpoint was run",))


def test_no_code_of_a_checkpoint_is_run(tmp_path, small):
    torch.save({"state_dict": small.state_dict(), "callbacks": Runs()}, tmp_path / "evil.ckpt")
    (tmp_path / "text.ckpt").write_text("not a checkpoint")
    for name in ("evil.ckpt", "text.ckpt", "none.ckpt"):
        with pytest.raises(ConfigError, match=f"{name}: cannot be read as tensors"):
            load_checkpoint(tmp_path / name, PhaseNO(**SMALL))


def test_however_a_checkpoint_is_cut_it_is_refused_by_name(tmp_path):
    """What torch raises depends on the place: of the unpickler's structs, assertions, attributes that are not there."""
    path = tmp_path / "cut.ckpt"
    torch.save({"fc0.weight": torch.zeros(1), "fc0.bias": torch.zeros(1)}, path, _use_new_zipfile_serialization=False)
    whole, network = path.read_bytes(), PhaseNO(**SMALL)
    for length in range(0, len(whole), 3):
        path.write_bytes(whole[:length])
        with pytest.raises(ConfigError, match=r"cut\.ckpt: cannot be read as tensors"):
            load_checkpoint(path, network)


def test_the_loss_is_the_published_one():
    logits, targets = torch.randn(3, 2, 50), torch.rand(3, 2, 50)
    chance = torch.sigmoid(logits)
    each = -(5 * targets * chance.log() + (1 - targets) * (1 - chance).log())
    expected = 0.5 * each[:, 0].mean() + 0.5 * each[:, 1].mean()
    torch.testing.assert_close(phaseno.loss(logits, targets), expected, rtol=1e-5, atol=0)


def trained(steps=20):
    torch.manual_seed(6)
    network = PhaseNO(**SMALL)
    window = small_window(4)
    targets = torch.zeros(4, 2, SMALL["samples"])
    for row in range(4):
        targets[row, 0, 95 + 40 * row : 105 + 40 * row] = 1
    adam, losses = torch.optim.Adam(network.parameters(), 1e-2), []
    for _ in range(steps):
        adam.zero_grad()
        value = phaseno.loss(network.logits(window), targets)
        value.backward()
        adam.step()
        losses.append(value.item())
    return network, losses


def test_a_small_one_learns_and_the_same_twice():
    network, losses = trained()
    assert losses[-1] < 0.5 * losses[0]
    again, _ = trained()
    for name, value in again.state_dict().items():
        assert torch.equal(value, network.state_dict()[name]), name


def test_sixteen_bits_do():
    network, window = known_numbers(PhaseNO(**SMALL)), small_window()
    exact = network.probabilities(window)
    with torch.autocast("cpu", torch.bfloat16):
        rough = network.probabilities(window)
        phaseno.loss(network.logits(window), torch.zeros_like(exact)).backward()
    assert float((exact - rough.float()).detach().abs().max()) < 0.02
    assert all(torch.isfinite(each.grad).all() for each in network.parameters())
