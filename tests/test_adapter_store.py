"""Weights with an adapter by name: ``phasenet/original+ogs-2024-lora``."""

import json
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest
import seisbench.models as sbm
import torch

from pipeline import config
from pipeline.cli import main
from pipeline.config import Compute, Pick
from pipeline.config.weight_names import split
from pipeline.errors import ConfigError
from pipeline.models import adapter_store, adapters, checked, originals, weights
from pipeline.models.adapters import Base, Recipe, attach
from pipeline.models.native import build
from pipeline.models.picker import Pickers
from pipeline.records import Waveform
from tests.adapter_cases import filled
from tests.test_checked import GOOD

PLAIN, NAME = "phasenet/original", "phasenet/original+ogs-2024-lora"


@pytest.fixture
def store(tmp_path, monkeypatch):
    """A store with one weight and one adapter on it."""
    monkeypatch.setenv("ORCOLAT_WEIGHTS", str(tmp_path / "store"))
    torch.manual_seed(0)
    model = sbm.PhaseNet(component_order="ENZ", phases="NPS").eval()
    weights._publish(weights._path(PLAIN), model.state_dict(), originals.describe(PLAIN))
    write("lora", "ogs-2024-lora")
    return tmp_path / "store"


def write(method, name, seed=1, base=PLAIN, **recipe):
    adapted = filled(attach(weights.load(base), Recipe(method, **recipe)), seed)
    path = adapter_store.path_of(weights.store(), name)
    path.parent.mkdir(parents=True, exist_ok=True)
    adapters.save(path, adapted, Base(base, weights.digest(base)), {"seed": seed})
    return adapted


def answer(model):
    with torch.no_grad():
        return model(torch.randn(2, 3, 3001, generator=torch.Generator().manual_seed(5)))


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("phasenet/original", ("phasenet/original", "")),
        ("phasenet/original+ogs-2024-lora", ("phasenet/original", "ogs-2024-lora")),
        ("seisbench:PhaseNet/instance+a", ("seisbench:PhaseNet/instance", "a")),
        ("phasenet/original+file:/a+b/c.safetensors", ("phasenet/original", "file:/a+b/c.safetensors")),
        ("file:/a/b+c.pt", ("file:/a/b+c.pt", "")),
        ("file:/a+b/c.pt", ("file:/a+b/c.pt", "")),
        ("file:/a/b.pt.v1+x", ("file:/a/b.pt.v1", "x")),
        ("file:/a/b.pt+file:/x.safetensors", ("file:/a/b.pt", "file:/x.safetensors")),
        ("phasenet/original+../../x", ("phasenet/original+../../x", "")),
        ("a+b+c", ("a+b", "c")),
    ],
)
def test_names_are_split(name, parts):
    assert split(name) == parts


def test_loaded_merged_and_plain(store):
    model = weights.load(NAME)
    assert type(model) is sbm.PhaseNet
    assert not model.training
    assert list(model.state_dict()) == list(weights.load(PLAIN).state_dict())
    live = adapters.apply(weights.load(PLAIN), store / "adapters/ogs-2024-lora.safetensors", weights.digest(PLAIN))
    assert torch.allclose(answer(model), answer(live.model), atol=1e-5)
    assert (answer(model) - answer(weights.load(PLAIN))).abs().max() > 1e-2


def test_a_bottleneck_is_loaded_beside_its_base(store):
    adapted = write("adapter", "narrow")
    model = weights.load(f"{PLAIN}+narrow")
    assert torch.equal(answer(model), answer(adapted.model))
    assert isinstance(model, sbm.PhaseNet)


def test_an_adapter_on_an_adapter(store):
    write("head", "second", base=NAME)
    model = weights.load(f"{NAME}+second")
    assert torch.equal(model.inc.weight, weights.load(NAME).inc.weight)
    assert not torch.equal(model.out.weight, weights.load(NAME).out.weight)
    with pytest.raises(ConfigError, match=r"this adapter was made on phasenet/original\+ogs-2024-lora"):
        weights.load(f"{PLAIN}+second")


def test_the_digest_covers_both(store):
    first, base = weights.digest(NAME), weights.digest(PLAIN)
    assert first != base
    write("lora", "ogs-2024-lora", seed=2)
    assert weights.digest(NAME) not in (first, base)
    write("lora", "ogs-2024-lora", seed=1)
    assert weights.digest(NAME) == first
    torch.manual_seed(1)
    weights._publish(weights._path(PLAIN), sbm.PhaseNet(phases="NPS").state_dict(), originals.describe(PLAIN))
    with pytest.raises(ConfigError, match=f"(?s)ogs-2024-lora.safetensors.*{base}.*{weights.digest(PLAIN)}"):
        weights.digest(NAME)
    with pytest.raises(ConfigError, match="bring those back, or train the adapter again"):
        weights.load(NAME)


def test_a_missing_adapter_names_path_and_remedy(store):
    with pytest.raises(ConfigError, match=rf"adapter {store}/adapters/none.safetensors is not there.*orcolat adapt"):
        weights.load(f"{PLAIN}+none")
    with pytest.raises(ConfigError, match=r"adapter /nowhere/x\.safetensors is not there"):
        weights.verify(f"{PLAIN}+file:/nowhere/x.safetensors")
    with pytest.raises(ConfigError, match=r"is unknown: write one of .* each with \+ADAPTER"):
        weights.load("phasenet/original+../x")


def test_an_adapter_by_its_path(store, tmp_path):
    (store / "adapters/ogs-2024-lora.safetensors").rename(tmp_path / "mine.safetensors")
    model = weights.load(f"{PLAIN}+file:{tmp_path}/mine.safetensors")
    assert (answer(model) - answer(weights.load(PLAIN))).abs().max() > 1e-2
    with pytest.raises(ConfigError):
        weights.load(NAME)


def test_fetching_takes_care_of_the_base_alone(store, monkeypatch):
    asked = []
    monkeypatch.setattr(weights, "_convert", lambda name: asked.append(name) or weights._torch_state)
    assert weights.fetch(f"{PLAIN}+none") == weights._path(PLAIN)
    assert not asked
    weights._path(PLAIN).unlink()
    with pytest.raises(TypeError):  # what our stand-in gives cannot be published
        weights.fetch(f"{PLAIN}+none")
    assert asked == [PLAIN]


def test_listed_and_verified(store, capsys):
    rows = {row.name: row for row in weights.available()}
    assert (rows[NAME].state, rows[NAME].sha256) == ("ready", weights.verify(NAME))
    assert rows[NAME].licence == rows[PLAIN].licence
    assert main(["weights", "list"]) == 0
    assert f"{NAME} " in capsys.readouterr().out
    assert main(["weights", "verify", NAME]) == 0
    assert f"{NAME}: sha256 {rows[NAME].sha256} ok" in capsys.readouterr().out


def test_the_list_says_what_cannot_be_used(store, capsys):
    (store / "adapters/broken.safetensors").write_bytes(b"x" * 40)
    torch.manual_seed(1)
    weights._publish(weights._path(PLAIN), sbm.PhaseNet(phases="NPS").state_dict(), originals.describe(PLAIN))
    states = {row.name: row.state for row in weights.available()}
    assert (states[NAME], states["+broken"]) == ("another base", "damaged")
    weights._path(PLAIN).unlink()
    weights._beside(weights._path(PLAIN)).unlink()
    assert {row.name: row.state for row in weights.available()}[NAME] == "not fetched"
    assert main(["weights", "verify", "+broken"]) == 2
    assert "broken.safetensors: no adapter file" in capsys.readouterr().err


def test_listing_needs_no_torch(store):
    code = "import sys; from pipeline.models import weights; weights.available(); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_configuration_may_name_one(tmp_path):
    demo = tomllib.loads((Path(__file__).parents[1] / "configs" / "demo.toml").read_text())
    of = lambda name: config.parse(demo | {"pick": {"weight": name}}, tmp_path / "c.toml").pick  # noqa: E731
    assert of(NAME).weight == NAME
    assert of(NAME).slug == "phasenet-original+ogs-2024-lora"
    assert of(f"{PLAIN}+file:a/x.safetensors").weight == f"{PLAIN}+file:{tmp_path}/a/x.safetensors"
    assert of("file:m.pt+file:x.safetensors").weight == f"file:{tmp_path}/m.pt+file:{tmp_path}/x.safetensors"
    assert of("file:m.pt+x").weight == f"file:{tmp_path}/m.pt+x"


def test_a_checked_precision_is_the_bases_alone(store, monkeypatch, tmp_path):
    monkeypatch.setattr(checked, "SHIPPED", tmp_path / "shipped.json")
    monkeypatch.setattr(checked, "network_kind", lambda pick, compute: "SeisBench")
    check = GOOD | {"weight": PLAIN, "sha256": weights.digest(PLAIN)}
    checked.SHIPPED.write_text(json.dumps([check]))
    checked.require(Pick(weight=PLAIN, precision="screened"), Compute())
    with pytest.raises(ConfigError, match="never checked against SeisBench"):
        checked.require(Pick(weight=NAME, precision="screened"), Compute())


@pytest.mark.skipif(bool(build.available()), reason=f"no kernels here: {build.available()[:200]}")
def test_a_run_picks_with_it_by_the_kernels_and_beside_its_base(store):
    write("adapter", "narrow")
    rng = np.random.default_rng(0)
    wave = Waveform(rng.standard_normal((3, 9000)).astype(np.float32), np.ones(9000, bool), 0, 100.0, (True,) * 3)
    pick = Pick(weight=NAME, also=({"weight": PLAIN}, {"weight": f"{PLAIN}+narrow"}))
    pickers = Pickers.of(pick, Compute())
    assert pickers.names == (NAME, PLAIN, f"{PLAIN}+narrow")
    assert [type(p.engines[0].network).__name__ for p in pickers.pickers] == ["Kernels", "Kernels", "SeisBench"]
    ours, plain, narrow = (scores.probability for scores in pickers.scores(wave))
    theirs = Pickers.of(Pick(weight=NAME), Compute(engine="seisbench")).scores(wave)[0].probability
    assert np.nanmax(abs(ours - theirs)) < 1e-5
    assert min(np.nanmax(abs(ours - plain)), np.nanmax(abs(narrow - plain))) > 1e-2
