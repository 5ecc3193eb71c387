"""From the picks of all units to tables, tests and the page of an adaptation."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np

from pipeline.adaptdir import ALL, AdaptDir, Unit, final, units
from pipeline.config import Config
from pipeline.config.weight_names import of_network
from pipeline.formats import tables
from pipeline.maths import picking_scores, picking_tables, splits
from pipeline.maths.picking_scores import PHASES, Bootstrap, Found, Rule
from pipeline.maths.picking_tables import TestSet
from pipeline.models import weights
from pipeline.page import adapt as page
from pipeline.records import Labelled, RecordPicks
from pipeline.rundir import publish
from pipeline.stages.adapt_data import Prepared
from pipeline.stages.adapt_score import FED, GIVEN, HOWS, STALTA, TUNED, WEAKLY, Given, feedings, slug

LIMIT = 0.02  # of F1, that the replay set may lose
NETWORKS = (
    "Networks are the records of an earthquake, or of noise at one time, that a fold has for test: stations without a "
    "label, or of other folds, are not heard. Pickers of stations, and STA/LTA, see the records one by one."
)
Picks = dict[tuple[str, str], list[RecordPicks]]  # by method and how: one a seed (weak: the first), all folds together


def folds(config: Config) -> range:
    return range(config.adapt.n_folds)


def others(config: Config) -> list[str]:
    """Weights that are scored as they are, the base first."""
    return list(dict.fromkeys([config.pick.weight, *config.adapt.baselines]))


def run(folder: AdaptDir, config: Config, sets: list[Prepared]) -> None:
    """Publish ``report/scores.json`` and the page."""
    _publish(folder, _report(folder, config, sets))


def add_catalogues(folder: AdaptDir, config: Config, sets: list[Prepared], rows: list[dict[str, Any]]) -> None:
    """Publish both once more, with ``rows`` that say what the adapter changes in a whole run, if there are any."""
    if rows:
        _publish(folder, read(folder) | {"catalogue": rows, "catalogue_note": _in_sample(config, sets)})


def _publish(folder: AdaptDir, report: dict[str, Any]) -> None:
    with publish(folder.scores) as part:
        part.write_text(json.dumps(report, indent=1, ensure_ascii=False, allow_nan=False), "utf-8")
    with publish(folder.report) as part:
        part.write_text(page.render(cast("page.Report", report)), "utf-8")


def _in_sample(config: Config, sets: list[Prepared]) -> str:
    """What a catalogue of the period that the adapter has learned from cannot show; "" of another."""
    rows = Labelled.concat([one.cache.rows for one in sets if not one.settings.replay])
    (start, stop), (begin, end) = rows.spans_ns(), config.run.span_ns
    n = int(np.count_nonzero(rows.has_time & (stop > begin) & (start < end)))
    if not n:
        return ""
    return (
        f"{n} of the {len(rows)} records for training lie in the period of this catalogue: it shows what changes "
        "there, not what to expect where nobody has picked. That is in the scores."
    )


def read(folder: AdaptDir) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(folder.scores.read_text("utf-8"))
    return found


def catalogue_rows(before: dict[str, Any], after: dict[str, Any]) -> list[dict[str, Any]]:
    """What the scorecards of two runs say, side by side."""
    rows: list[dict[str, Any]] = []
    scores = [{"events": card.get("events"), **(card.get("picks") or {})} for card in (before, after)]
    for kind, name in (("events", "events"), ("P", "P picks"), ("S", "S picks")):
        both = [card.get(kind) for card in scores]
        if not all(both):
            continue
        for rate in ("recall", "precision", "f1"):
            values = [card[rate] for card in both if card]
            rows.append({"name": f"{name}: {rate}", "before": values[0], "after": values[1], "digits": 3})
    return rows


def _report(folder: AdaptDir, config: Config, sets: list[Prepared]) -> dict[str, Any]:
    adapt, split = config.adapt, json.loads(folder.gate.read_text("utf-8"))
    picks, chosen = _gathered(folder, config)
    boot = Bootstrap(adapt.bootstrap_samples, adapt.confidence)
    rules = [Rule(tolerance_s, counted) for tolerance_s in adapt.tolerances_s for counted in ("strict", "near")]
    scored = [one for one in sets if not one.settings.replay]
    named = {one.settings.name: _test_set(one, config, _methods(picks, config)) for one in scored}
    ours, against = f"{adapt.methods[0]}, tuned", FED
    made = json.loads(folder.history(final(config)).read_text("utf-8"))
    return {
        "title": adapt.name or config.run.name,
        "base": {"name": config.pick.weight, "digest": weights.digest(config.pick.weight)},
        "adapter": {"name": adapt.name or "adapter", "digest": _digest(folder, config), "file": folder.kept.name},
        "ours": ours,
        "recipe": _recipe(config),
        "shares": made["shares"],
        "confidence": adapt.confidence,
        "seeds": list(adapt.seeds),
        "primary": {
            "set": scored[0].settings.name, "other": against, "tolerance_s": adapt.tolerances_s[0], "counted": "strict",
        },
        "sets": [{"name": name, **about} for name, about in split["sets"].items()],
        "leakage": {"passed": True, "checks": _checks(sets), "warnings": split["warnings"]},
        "scores": picking_tables.score_rows(named, boot, rules),
        "against": picking_tables.against_rows(named, ours, boot, rules),
        "thresholds": _thresholds(chosen),
        "curves": _curves(folder, config),
        "reliability": _reliability(scored[0], config, picks),
        "residuals": _residuals(scored[0], config, picks, named[scored[0].settings.name], rules[-2]),
        "notes": _notes(config),
        **_control(scored, config, picks, boot, rules[0]),
        **_replay(sets, config, picks, boot, rules[0]),
    }  # fmt: skip


def _gathered(folder: AdaptDir, config: Config) -> tuple[Picks, dict[str, list[dict[str, str]]]]:
    """The picks of each method, in every way, one table a seed; and of each fold and seed what was chosen."""
    files: dict[str, list[list[Path]]] = defaultdict(list)
    trained: dict[tuple[str, int], list[Unit]] = defaultdict(list)
    for unit in units(config):
        if unit.fold != ALL:
            trained["control" if unit.control else unit.method, unit.seed].append(unit)
    for (method, _), members in trained.items():
        files[method].append([folder.picks(unit.id) for unit in members])
    plain = [*others(config), FED, *([STALTA] if config.adapt.stalta else [])]
    for name in plain:
        stem = name if name in (FED, STALTA) else slug(name)
        files[name].append([folder.picks(f"{stem}-fold{fold}") for fold in folds(config)])
    found: Picks = defaultdict(list)
    chosen: dict[str, list[dict[str, str]]] = {}
    for method, seeds in files.items():
        for k, paths in enumerate(seeds):
            picks = RecordPicks.concat([tables.read(path, RecordPicks) for path in paths])
            for how in (GIVEN, TUNED) if k else HOWS:  # the weak ones are many, and of the first seed shown alone
                found[method, how].append(picks.take(picks.how == how))
        chosen[method] = [tables.metadata(path) for paths in seeds for path in paths]
    return found, chosen


def _methods(picks: Picks, config: Config) -> dict[str, list[RecordPicks]]:
    """What the tables compare, by the names that they have there."""
    found: dict[str, list[RecordPicks]] = {}
    for method in config.adapt.methods:
        found |= {f"{method}, tuned": picks[method, TUNED], method: picks[method, GIVEN]}
    base = config.pick.weight
    found |= {FED: picks[FED, TUNED], "frozen, tuned thresholds": picks[base, TUNED], "frozen": picks[base, GIVEN]}
    for name in others(config)[1:]:
        found |= {f"{name}, tuned": picks[name, TUNED], name: picks[name, GIVEN]}
    return found | ({STALTA: picks[STALTA, TUNED]} if config.adapt.stalta else {})


def _test_set(one: Prepared, config: Config, methods: dict[str, list[RecordPicks]]) -> TestSet:
    """Each record of the set once, in the fold that has it for test, and what each method picks on it."""
    parts = range(len(one.parts)) if one.settings.replay else folds(config)
    index = np.concatenate([one.of(fold, splits.TEST) for fold in parts])
    index = index[np.sort(np.unique(index, return_index=True)[1])]
    given = Given(one.cache, index)
    at = {id_: k for k, id_ in enumerate(given.rows.id.tolist())}
    name = one.settings.name
    return TestSet(given.truth, {m: [_found(picks, name, at) for picks in seeds] for m, seeds in methods.items()})


def _found(picks: RecordPicks, name: str, at: dict[str, int]) -> Found:
    mine = picks.take(picks.set == name)
    record = np.array([at[id_] for id_ in mine.record.tolist()], np.int64)
    return Found(record, mine.phase, mine.time_s, mine.probability)


def _control(sets: Sequence[Prepared], config: Config, picks: Picks, boot: Bootstrap, rule: Rule) -> dict[str, Any]:
    """What came of wrong labels, and whether right ones are better."""
    if not config.adapt.control:
        return {}
    ours = f"{config.adapt.methods[0]}, tuned"
    methods = {"control": picks["control", TUNED], FED: picks[FED, TUNED], ours: picks[config.adapt.methods[0], TUNED]}
    named = {one.settings.name: _test_set(one, config, methods) for one in sets}
    what = f"{config.adapt.methods[0]}, trained with the labels of each record moved to anywhere in it"
    rows = picking_tables.against_rows(named, "control", boot, [rule])
    against = picking_tables.against_rows(named, ours, boot, [rule])
    return {
        "control": {
            "what": what,
            "rows": [row for row in rows if row["other"] == FED],
            "against": [row for row in against if row["other"] == "control"],
        }
    }


def _replay(sets: Sequence[Prepared], config: Config, picks: Picks, boot: Bootstrap, rule: Rule) -> dict[str, Any]:
    """Whether the adapters of the first fold are worse than their base where that comes from."""
    one = next((each for each in sets if each.settings.replay), None)
    if one is None:
        return {}
    method = config.adapt.methods[0]
    methods = {method: picks[method, GIVEN], "frozen": picks[config.pick.weight, GIVEN]}
    return {"replay": picking_tables.replay(
        one.settings.name, _test_set(one, config, methods), method, "frozen", LIMIT, rule, boot
    )}  # fmt: skip


def _thresholds(chosen: dict[str, list[dict[str, str]]]) -> list[dict[str, Any]]:
    rows = []
    for method, about in chosen.items():
        p, s = (float(np.median([float(one[f"threshold_{phase}"]) for one in about])) for phase in ("p", "s"))
        fed = sorted({one["feeding"] for one in about if "feeding" in one})
        rows.append({"method": method, "P": p, "S": s, "chosen": "; ".join(["on the validation records", *fed])})
    return rows


def _curves(folder: AdaptDir, config: Config) -> list[dict[str, Any]]:
    """Learning curves of the first fold; epoch 0 is before the first one."""
    found = []
    for unit in [one for one in units(config) if one.fold == 0]:
        history = json.loads(folder.history(unit).read_text("utf-8"))
        n = len(history["validation"])
        ended = "all epochs" if n == config.adapt.epochs else f"{config.adapt.patience} epochs without a better one"
        found.append(
            {
                "name": unit.id, "epochs": list(range(n + 1)), "train": [None, *history["training"]],
                "validation": [history["untrained"], *history["validation"]], "chosen": history["best"] + 1,
                "ended": ended,
            }
        )  # fmt: skip
    return found


def _reliability(one: Prepared, config: Config, picks: Picks) -> list[dict[str, Any]]:
    ways = {"before": picks[config.pick.weight, WEAKLY], "after": picks[config.adapt.methods[0], WEAKLY]}
    made = _test_set(one, config, ways)
    rule = Rule(config.adapt.tolerances_s[-1])
    return [
        {"phase": phase, **{
            name: picking_tables.curve(picking_scores.calibration(made.labels, seeds[0], phase, rule))
            for name, seeds in made.methods.items()
        }}
        for phase in PHASES
    ]  # fmt: skip


def _residuals(one: Prepared, config: Config, picks: Picks, made: TestSet, rule: Rule) -> list[dict[str, Any]]:
    wide = replace(rule, counted="strict")
    names = {"before_s": "frozen", "after_s": config.adapt.methods[0]}
    rows = []
    for phase in PHASES:
        row: dict[str, Any] = {"set": one.settings.name, "phase": phase}
        for key, method in names.items():
            judged = picking_scores.judge(made.labels, made.methods[method][0], phase, wide)
            row[key] = judged.residual_s[np.isfinite(judged.residual_s)].tolist()
        rows.append(row)
    return rows


def _checks(sets: Sequence[Prepared]) -> list[dict[str, Any]]:
    """What the gate looked at; it raises where one of these fails."""
    return [
        {"name": f"{one.settings.name}: {kind}", "passed": True, "detail": "no two parts share one, in any fold"}
        for one in sets
        if not one.settings.replay
        for kind in splits.PROMISES[one.settings.split]
    ]


def _recipe(config: Config) -> dict[str, Any]:
    adapt = config.adapt
    names = ("rank", "alpha", "bottleneck", "learning_rate", "batch", "epochs", "patience", "weight_decay", "schedule")
    more = ("clip", "amp", "crops", "half_width_s", "label_shape")
    found = {name: getattr(adapt, name) for name in (*names, *more)}
    return {"method": adapt.methods[0], **found, "targets": ", ".join(adapt.targets) or "default"}


def _notes(config: Config) -> list[str]:
    fed = f'"{FED}" also chooses the rate, filter and normalisation that the base is fed.'
    if len(feedings(config)) == 1:
        fed = f'"{FED}" is fed in its own way alone.'
    return [
        "Each record is tested once at most, by networks that have seen neither it nor what the split says must not be "
        "shared.",
        f'"tuned" takes thresholds of the best F1 on validation records; the others P {config.pick.threshold_p:g}, S '
        f"{config.pick.threshold_s:g}. {fed}",
        *([NETWORKS] if any(of_network(name) for name in others(config)) else []),
    ]


def _digest(folder: AdaptDir, config: Config) -> str:
    from pipeline.models import adapter_file

    header, _ = adapter_file.read(folder.adapter(final(config)))
    return header.sha256
