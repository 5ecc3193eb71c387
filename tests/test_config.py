"""Configuration: what is accepted, what is refused, and how the refusal reads."""

import tomllib
from datetime import date
from pathlib import Path

import pytest

from pipeline import config as configs
from pipeline.errors import ConfigError

GOOD = """
[run]
name = "t"
start = 2024-05-06T00:00:00Z
end = 2024-05-07
[archive]
root = "waves"
[stations]
files = ["stations.csv"]
[associate]
center_latitude_deg = 46.0
center_longitude_deg = 12.0
x_km = [-100, 100]
y_km = [-100.0, 100.0]
"""


ALSO = """
[[pick.also]]
weight = "b/c"
"""


@pytest.fixture
def path(tmp_path):
    file = tmp_path / "run.toml"
    file.write_text(GOOD)
    return file


def refuse(path, old, new):
    path.write_text(GOOD.replace(old, new))
    with pytest.raises(ConfigError) as caught:
        configs.load(path)
    assert str(path) in str(caught.value)
    return str(caught.value)


def test_paths_start_at_the_file_and_times_are_utc(path):
    config = configs.load(path)
    assert config.archive.root == path.parent / "waves"
    assert config.run.span_ns == (1_714_953_600 * 10**9, 1_715_040_000 * 10**9)


def test_an_unknown_key_is_named_with_the_known_ones(path):
    message = refuse(path, "[archive]", "[archive]\nlayuot = 'sds'")
    assert "archive.layuot" in message
    assert "layout" in message


def test_a_wrong_value_is_named_with_what_is_allowed(path):
    message = refuse(path, "[archive]", "[archive]\nmissing_components = 'guess'")
    assert "archive.missing_components" in message
    assert "'guess'" in message
    assert "'zero', 'repeat' or 'skip'" in message


@pytest.mark.parametrize(
    ("old", "new", "named"),
    [
        ("2024-05-07", "2024-05-05", "not after start"),
        ("[archive]", "[archive]\nlayout = '../{station}.{day}'", "without '..'"),
        ("[archive]", "[archive]\nlayout = '{station}.{doy}'", "known fields are"),
        ("[archive]", "[archive]\nlayout = '{network}.mseed'", "needs {station}"),
        ("x_km = [-100, 100]", "x_km = [100, -100]", "associate.x_km"),
        ("x_km = [-100, 100]", "x_km = [-100, 100]\nmax_rms_s = 0", "associate.max_rms_s is 0"),
        ("x_km = [-100, 100]", "x_km = [-100, 100]\nmax_gap_deg = 400", "associate.max_gap_deg is 400"),
        ("x_km = [-100, 100]", "x_km = [-100, 100]\nmin_pairs = -1", "associate.min_pairs is -1"),
        ('root = "waves"', "", "archive.root"),
        ("[associate]", "[pick]\nthreshold_p = nan\n[associate]", "pick.threshold_p"),
        ("[associate]", "[pick]\nthreshold_p = 1.5\n[associate]", "less than 1"),
        ("[associate]", "[pick]\nthreshold_p = 2\n[associate]", "allowed: > 0, < 1"),
        ("[associate]", "[pick]\nblinding_samples = [-5, 2]\n[associate]", "pick.blinding_samples"),
        ("[associate]", "[compare]\npolygon = [[9.5, 44.3]]\n[associate]", "at least 3 corners"),
        ("[associate]", "[compare]\npick_weights = [0, 1, 0]\n[associate]", "must be greater than 0"),
        ("[archive]", "[archive]\nbands = ['hh']", "archive.bands"),
        ("2024-05-06T00:00:00Z", "20240506", "write a date and time"),
        ('name = "t"', 'name = "../t"', "run.name"),
        ("[run]", "[run", "not valid TOML"),
        ("[associate]", ALSO.replace("b/c", "phasenet/original") + "[associate]", "two pickers have the weight"),
        ("[associate]", ALSO + ALSO.replace("b/c", "b-c") + "[associate]", "two pickers have the weight b-c"),
        ("[associate]", ALSO + "threshold_p = 2\n[associate]", "pick.also.0.threshold_p"),
        ("[associate]", ALSO + "overlap_samples = -1\n[associate]", "pick.also.0.overlap_samples"),
        ("[associate]", ALSO + "treshold = 2\n[associate]", "threshold_p"),
        ("[associate]", "[[pick.also]]\n[associate]", "pick.also.0.weight: missing"),
        ("[associate]", ALSO + "threshold_p = 1.5\n[associate]", "allowed: > 0, < 1"),
        (
            "[associate]",
            "[pick]\nalso = {weight = 'b/c'}\n[associate]",
            "pick.also: write each further picker as a table",
        ),
        ("[associate]", "[pick]\nalso = ['b/c']\n[associate]", "pick.also is ['b/c']: write each further picker as"),
        ("[associate]", "[pick]\nweight = ''\n[associate]", "pick.weight is '': name the weights"),
        ("[associate]", "[pick]\nensemble = 'mean'\n[associate]", "of one picker"),
        (
            "[associate]",
            "[pick]\nensemble = 'max'\n" + ALSO + "threshold_s = 0.5\n[associate]",
            "takes the thresholds of [pick]",
        ),
    ],
)
def test_nonsense_is_refused(path, old, new, named):
    assert named in refuse(path, old, new)


@pytest.mark.parametrize("value", ["-1", "true", "1.0", "two"])
def test_the_number_of_scorers_is_auto_or_an_integer_and_said_once(path, value):
    with pytest.raises(ConfigError) as caught:
        configs.load(path, [f"compute.scorers={value}"])
    shown = {"true": "True", "two": "'two'"}.get(value, value)
    assert str(caught.value) == f"{path}: compute.scorers is {shown}: 'auto' or an integer >= 0"
    assert configs.load(path, ["compute.scorers=2"]).compute.scorers == 2
    assert configs.load(path, ["compute.scorers=auto"]).compute.scorers == "auto"


def test_the_filled_in_file_gives_the_same_configuration(path, tmp_path):
    config = configs.load(path)
    elsewhere = tmp_path / "deep" / "config.toml"
    elsewhere.parent.mkdir()
    elsewhere.write_text(configs.dumps(config))
    assert configs.load(elsewhere) == config
    assert tomllib.loads(elsewhere.read_text())["pick"]["threshold_p"] == 0.3


def test_compute_is_not_in_the_digest_and_the_rest_is(path):
    digest = configs.load(path).digest
    assert configs.load(path, ["compute.threads=2"]).digest == digest
    assert configs.load(path, ["pick.threshold_p=0.2"]).digest != digest


def test_overrides_take_toml_values_and_bare_words(path):
    config = configs.load(path, ["pick.threshold_s=0.25", "pick.weight=eqtransformer/original"])
    assert (config.pick.threshold_s, config.pick.weight) == (0.25, "eqtransformer/original")
    with pytest.raises(ConfigError, match=r"section\.key=value"):
        configs.load(path, ["pick.threshold_s"])


def test_a_weight_file_lies_beside_the_configuration(path):
    assert configs.load(path, ["pick.weight=file:m.pt"]).pick.weight == f"file:{path.parent / 'm.pt'}"


SEVERAL = """[pick]
threshold_p = 0.4
min_separation_s = 0.5
blinding_samples = [10, 20]
[[pick.also]]
weight = "file:m.pt"
threshold_s = 0.2
[[pick.also]]
weight = "seisbench:GPD/original"
overlap_samples = 395
"""


def test_further_pickers_have_settings_of_their_own(path, tmp_path):
    path.write_text(GOOD + SEVERAL)
    config = configs.load(path)
    file = f"file:{path.parent / 'm.pt'}"
    assert config.pick.weights == ("phasenet/original", file, "seisbench:GPD/original")
    main, second, third = config.pick.pickers
    assert [(p.threshold_p, p.threshold_s) for p in (main, second, third)] == [(0.4, 0.3), (0.4, 0.2), (0.4, 0.3)]
    assert [p.blinding_samples for p in (main, second, third)] == [(10, 20), None, None]
    assert (third.overlap_samples, third.min_separation_s, third.also, third.slug) == (
        395,
        0.5,
        (),
        "seisbench-GPD-original",
    )
    elsewhere = tmp_path / "deep" / "config.toml"
    elsewhere.parent.mkdir()
    elsewhere.write_text(configs.dumps(config))
    assert configs.load(elsewhere) == config
    assert len(tomllib.loads(elsewhere.read_text())["pick"]["also"]) == 2


def test_one_of_several_pickers_alone_is_a_configuration(path):
    path.write_text(GOOD + SEVERAL)
    config = configs.load(path)
    alone = config.of_picker("seisbench:GPD/original")
    path.write_text(configs.dumps(alone))
    assert configs.load(path) == alone
    assert alone.pick.weight == "seisbench:GPD/original"
    assert config.of_picker("phasenet/original").pick == config.pick.pickers[0]
    assert len({config.digest, alone.digest, config.of_picker("phasenet/original").digest}) == 3
    with pytest.raises(ConfigError, match="no picker has the weight 'x'"):
        config.of_picker("x")


def test_the_digest_of_one_picker_changes_only_on_purpose(path):
    config = configs.load(path)
    fixed = configs.parse(tomllib.loads(GOOD), Path("/x/run.toml"))
    assert fixed.digest == "d97fe794a4ce66416cfc761da7c0ed47963986b4301cd0027809f4ca5136b9b8"
    several = [configs.load(path, ['pick.also=[{weight = "b"}]', *more]) for more in ([], ["pick.ensemble=max"])]
    assert len({config.digest, *(each.digest for each in several)}) == 3


def test_a_run_that_imports_picks_needs_no_weights(path):
    path.write_text(GOOD.replace('root = "waves"', "") + "[pick]\nsource = 'picks.csv'\n")
    assert configs.load(path).pick.weights == ()


def test_a_missing_file_says_so(tmp_path):
    with pytest.raises(ConfigError, match="cannot read"):
        configs.load(tmp_path / "none.toml")


SHIPPED = Path(__file__).parents[1] / "configs"
SITES = {SHIPPED / "leonardo.toml"}


@pytest.mark.parametrize("path", sorted(set(SHIPPED.glob("*.toml")) - SITES), ids=lambda p: p.name)
def test_the_shipped_configurations_are_valid(path):
    assert configs.load(path).run.name


@pytest.mark.parametrize("site", sorted(SITES), ids=lambda p: p.name)
def test_a_shipped_site_goes_with_any_configuration(path, site):
    config = configs.load(path, site=site)
    assert config.slurm.env.is_file()
    assert config.slurm.account
    assert config.digest == configs.load(path).digest


def test_a_site_goes_before_the_configuration_and_set_before_both(path, tmp_path):
    path.write_text(GOOD + "[slurm]\nqos = 'mine'\nmax_tasks = 3\n[slurm.after]\nranks = 2\nmem = '1G'\n")
    (tmp_path / "site").mkdir()
    site = tmp_path / "site" / "s.toml"
    site.write_text("[slurm]\nmax_tasks = 9\nenv = 'e.sh'\n[slurm.after]\nmem = '2G'\n[compute]\nscratch = 'fast'\n")
    config = configs.load(path, ["slurm.account=a"], site)
    assert (config.slurm.account, config.slurm.qos, config.slurm.max_tasks) == ("a", "mine", 9)
    assert (config.slurm.after.ranks, config.slurm.after.mem) == (2, "2G")
    assert (config.slurm.env, config.compute.scratch) == (site.parent / "e.sh", site.parent / "fast")
    assert configs.load(path, ["slurm.max_tasks=5"], site).slurm.max_tasks == 5
    path.write_text(configs.dumps(config))
    assert configs.load(path) == config


def test_a_site_changes_no_result(path, tmp_path):
    (tmp_path / "s.toml").write_text("[pick]\nthreshold_p = 0.9\n")
    with pytest.raises(ConfigError, match=r"s\.toml: pick: unknown key .*known keys: "):
        configs.load(path, site=tmp_path / "s.toml")


@pytest.mark.parametrize(
    ("text", "seconds"), [("90", 5400), ("10:30", 630), ("04:00:00", 14400), ("2-00:00:00", 172800), ("1-12", 129600)]
)
def test_times_are_those_of_slurm(path, text, seconds):
    for given in (f"'{text}'", text):
        assert configs.load(path, [f"slurm.time_limit={given}"]).slurm.time_limit_s == seconds


@pytest.mark.parametrize(
    ("override", "named"),
    [
        ("slurm.time_limit='soon'", "slurm.time_limit"),
        ("slurm.time_limit='00:01:00'", "not more than signal_s 120"),
        ("slurm.partition='a; rm'", "slurm.partition"),
        ("slurm.extra=['-J x']", "slurm.extra"),
    ],
)
def test_wrong_words_to_slurm_are_refused(path, override, named):
    with pytest.raises(ConfigError, match=named):
        configs.load(path, [override])


def test_one_day_alone(path):
    config = configs.load(path).of_day(date(2024, 2, 29))
    assert (config.run.name, config.run.span_ns) == ("t-2024-02-29", (1_709_164_800 * 10**9, 1_709_251_200 * 10**9))
    path.write_text(configs.dumps(config))
    assert configs.load(path) == config
