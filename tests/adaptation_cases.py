"""For tests of adaptations: what one leaves, and for its page a fabricated one, figures of nobody."""

import numpy as np

from pipeline.maths import picking_scores, picking_tables
from pipeline.maths.picking_scores import Bootstrap, Found, Rule, Truth
from pipeline.maths.picking_tables import TestSet

TestSet.__test__ = False  # a noun, not tests
NAN = float("nan")
BOOT = Bootstrap(200)
QUALITY = {  # share found, spread (s), extra picks a record
    "adapted": (0.95, 0.05, 0.05),
    "frozen": (0.75, 0.09, 0.15),
    "tuned-frozen": (0.82, 0.08, 0.10),
    "STA/LTA": (0.55, 0.15, 0.30),
    "EQTransformer": (0.78, 0.09, 0.12),
}
SEEDED = ("adapted",)


def labels(rng, n_events, per_event=3, n_noise=12):
    n = n_events * per_event
    p_s, s_s = rng.uniform(5, 20, n), rng.uniform(22, 30, n)
    s_s[rng.random(n) < 0.2] = NAN
    event = np.concatenate([np.repeat([f"e{k}" for k in range(n_events)], per_event), np.full(n_noise, "")])
    return Truth(event, np.append(p_s, np.full(n_noise, NAN)), np.append(s_s, np.full(n_noise, NAN)))


def picks(rng, truth, quality):
    share, spread_s, extra = quality
    rows = []
    for k in range(len(truth)):
        for phase in "PS":
            at = truth.label_s(phase)[k]
            if np.isfinite(at) and rng.random() < share:
                rows.append((k, phase, at + rng.normal(0, spread_s), rng.uniform(0.35, 1)))
            if rng.random() < extra:
                rows.append((k, phase, rng.uniform(0, 60), rng.uniform(0.1, 0.6)))
    record, phase, time_s, probability = zip(*rows, strict=True)
    return Found(np.array(record), np.array(phase), np.array(time_s), np.array(probability))


def made(rng, n_events, quality=QUALITY, seeds=3):
    truth = labels(rng, n_events)
    found = {m: [picks(rng, truth, q) for _ in range(seeds if m in SEEDED else 1)] for m, q in quality.items()}
    return TestSet(truth, found)


def adaptation(quality=QUALITY, seed=0):
    """The input of the page: two data sets, five methods, three seeds."""
    rng = np.random.default_rng(seed)
    sets = {"ncedc": made(rng, 25, quality), "burial": made(rng, 40, quality)}
    parent = {"adapted": quality["frozen"], "frozen": quality["frozen"]}
    shuffled = {"control": quality["frozen"], "tuned-frozen": quality["tuned-frozen"]}
    one, rule = sets["ncedc"], Rule(0.1, "strict")
    beyond = TestSet(one.labels, {"adapted": one.methods["adapted"], "control": one.methods["frozen"]})
    curves = {
        key: {phase: picking_scores.calibration(one.labels, one.methods[m][0], phase, rule) for phase in "PS"}
        for key, m in (("before", "frozen"), ("after", "adapted"))
    }
    residuals = {
        key: {phase: picking_scores.judge(one.labels, one.methods[m][0], phase, Rule(0.5)) for phase in "PS"}
        for key, m in (("before", "frozen"), ("after", "adapted"))
    }
    counts = {"records": 140, "noise": 20, "events": 40, "stations": 31, "p": 120, "s": 98}
    return {
        "title": "PhaseNet tuned to a quarry",
        "base": {"name": "phasenet/original", "digest": "9f" * 32},
        "adapter": {"name": "quarry-lora", "digest": "a1" * 32, "file": "quarry-lora.safetensors"},
        "ours": "adapted",
        "recipe": {"method": "lora", "rank": 8, "alpha": 16.0, "optimiser": "Adam 1e-4, weight decay 1e-5",
                   "batch": 8, "epochs": "at most 80, patience 15"},
        "shares": {"adapter": 9632, "base": 268443, "of_base": 9632 / 268443, "of_total": 9632 / (9632 + 268443)},
        "confidence": 0.95,
        "seeds": [0, 1, 2],
        "primary": {"set": "ncedc", "other": "tuned-frozen", "tolerance_s": 0.1, "counted": "strict"},
        "sets": [
            {"name": "ncedc", "source": "70 records of analysts", "dropped": {"without P": 3, "too short": 1},
             "counts": {"train": counts, "validation": {**counts, "records": 33}, "test": {**counts, "records": 87}}},
            {"name": "burial", "source": "real records in real noise", "dropped": {},
             "counts": {"train": counts, "validation": counts, "test": {**counts, "records": 132}}},
        ],
        "leakage": {
            "passed": True,
            "checks": [{"name": "events", "passed": True, "detail": "no event is in two parts"},
                       {"name": "stations", "passed": True, "detail": "no station is in two parts"}],
            "warnings": ["phasenet/original was trained on Northern California, 1984 to 2018: the years overlap"],
        },
        "scores": picking_tables.score_rows(sets, BOOT),
        "against": picking_tables.against_rows(sets, "adapted", BOOT),
        "thresholds": [{"method": "adapted", "P": 0.32, "S": 0.28, "chosen": "on validation, by F1"},
                       {"method": "frozen", "P": 0.3, "S": 0.3, "chosen": "as published"}],
        "control": {"what": "The labels of the training records were shuffled among them",
                    "rows": picking_tables.against_rows(
                        {"ncedc": made(rng, 25, shuffled)}, "control", BOOT, (rule,)),
                    "against": picking_tables.against_rows({"ncedc": beyond}, "adapted", BOOT, (rule,))},
        "replay": picking_tables.replay("stead sample", made(rng, 60, parent), "adapted", "frozen", 0.02, rule, BOOT),
        "curves": [
            {"name": f"seed {k}", "epochs": list(range(1, 31)), "chosen": 15 + k, "ended": "patience",
             "train": (0.3 * np.exp(-np.arange(30) / (8 + k)) + 0.02).tolist(),
             "validation": (0.3 * np.exp(-np.arange(30) / 9) + 0.05 + ((np.arange(30) - 14 - k) / 60) ** 2).tolist()}
            for k in range(3)
        ],
        "reliability": [
            {"phase": phase, **{key: picking_tables.curve(curves[key][phase]) for key in curves}} for phase in "PS"
        ],
        "residuals": [
            {"set": "ncedc", "phase": phase,
             **{f"{key}_s": residuals[key][phase].residual_s[residuals[key][phase].hit].tolist() for key in residuals}}
            for phase in "PS"
        ],
        "catalogue": [
            {"name": "events", "before": 153, "after": 171, "digits": 0},
            {"name": "recall of the reference", "digits": 2, "before": {"value": 0.81, "low": 0.74, "high": 0.87},
             "after": {"value": 0.86, "low": 0.79, "high": 0.91}},
            {"name": "median residual of P (s)", "before": 0.081, "after": None, "digits": 3},
        ],
        "cost": {"device": "16 cores, no GPU",
                 "rows": [{"name": "training, 3 seeds", "wall_s": 812.4, "cpu_s": 1590.0},
                          {"name": "scores", "wall_s": 12.0, "cpu_s": 11.5}]},
        "notes": ["Made up."],
    }  # fmt: skip


def snapshot(folder):
    """The bytes of all that an adaptation gives."""
    paths = [folder.kept, folder.scores, folder.report, folder.gate]
    paths += sorted((folder.root / "picks").glob("*.parquet"))
    return {str(path.relative_to(folder.root)): path.read_bytes() for path in paths}
