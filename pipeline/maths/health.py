"""Is a station well? Each day of it against its own days before: data, silence, residuals, clock, noise.

Every rule says "watch" or "bad" with a reason in words; the worst counts. Without any a day of which something is known
is "ok". The limits were set on analysts' picks of 99
stations over 93 days, and with faults put into them (docs/decisions/026).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np

from pipeline.maths.days import day_numbers
from pipeline.maths.intervals import weighted_median
from pipeline.maths.stats import NAN
from pipeline.records import Bool, Float, Int, StationHealth, Text

OK, WATCH, BAD, NOT_JUDGED = "ok", "watch", "bad", ""
RANK = {NOT_JUDGED: 0, OK: 1, WATCH: 2, BAD: 3}
Finding = tuple[str, str]  # status and reason

RECENT_DAYS = 7  # the longest time that recent picks may be from
RECENT = 4  # picks of one phase: fewer tell no drift
USUAL = 8  # picks of one phase in the days before: fewer are no measure
SCATTER_S = 0.1  # a station's residuals scatter at least so much
DRIFT_S = {WATCH: 0.25, BAD: 0.5}
DRIFT_SIGMAS = {WATCH: 5.0, BAD: 7.0}  # of one phase
CLOCK_SIGMAS = {WATCH: 4.0, BAD: 5.0}  # of P and S together, where they agree: hardly ever by chance
SAME_S = 0.3  # drifts of P and S that differ by no more are those of a clock
SILENT_DAYS = 14  # the longest silence that is summed
SILENCE = {WATCH: 1e-3, BAD: 1e-5}  # probability that a station which is well misses so many events in a row
SUREST = 0.9  # no station is taken for surer to pick an event: what it misses hangs together
USUAL_EVENTS = 10  # of its neighbours in the days before: fewer are no measure
LOUD = {WATCH: (4.0, 10.0), BAD: (10.0, 30.0)}  # picks of no event: so many times the usual number, and so many more
FEW = 0.1  # of the usual number of picks
MANY_PICKS = 20  # a day: below that few picks mean nothing
WEAKER_DB = 6.0
USUAL_DAYS = 5  # fewer days before are no measure


@dataclass(frozen=True, slots=True)
class Drift:
    """How far recent residuals are from the usual ones, and in how many standard errors; NaN: not known.

    ``apart_s``: of two phases, how far the drift of the one is from that of the other.
    """

    value_s: float = NAN
    sigmas: float = NAN
    apart_s: float = NAN


NO_DRIFT = Drift()


def judge(facts: StationHealth, before: StationHealth, own_days: int) -> StationHealth:
    """``facts`` with status, reason, drifts and clock; of ``before`` the days before the first of ``facts`` count.

    A station is compared with ``own_days`` days of its own, those before the picks or the silence in question.
    """
    if not len(facts):
        return facts
    first = min(facts.day.tolist())
    earlier = before.take(before.day < first)
    table = StationHealth.concat([earlier, facts]).ordered()
    day = day_numbers(table.day)
    asked = table.day >= first
    storm = _storm(table, day, own_days)
    found: dict[int, tuple[list[Finding], Drift, Drift, float]] = {}
    for rows in _by_station(table.station):
        one = _Station(table.take(rows), day[rows], own_days, [storm[d] for d in day[rows].tolist()])
        for k in np.flatnonzero(asked[rows]).tolist():
            found[int(rows[k])] = one.judged(k)
    rows = np.flatnonzero(asked)
    results = [found[row] for row in rows.tolist()]
    worst = [max((status for status, _ in each[0]), key=RANK.__getitem__) for each in results]
    return replace(
        table.take(rows),
        status=np.array(worst, np.str_),
        reason=np.array(["; ".join(reason for _, reason in each[0] if reason) for each in results], np.str_),
        drift_p_s=np.array([each[1].value_s for each in results], np.float64),
        drift_s_s=np.array([each[2].value_s for each in results], np.float64),
        clock_s=np.array([each[3] for each in results], np.float64),
    )


def _by_station(station: Text) -> Iterable[Int]:
    """Rows of each station, in their order."""
    order = np.argsort(station, kind="stable")
    first = np.flatnonzero(np.r_[True, station[order][1:] != station[order][:-1]])
    return np.split(order, first[1:])


def _storm(table: StationHealth, day: Int, own_days: int) -> dict[int, float]:
    """How many times more picks of no event the median station has on each day than usually; 1 at least.

    An aftershock sequence or a storm is no station's fault.
    """
    noise = _noise(table)
    median = {d: float(np.median(noise[day == d])) for d in np.unique(day).tolist()}
    out = {}
    for d, here in median.items():
        usual = [value for other, value in median.items() if d - own_days <= other < d]
        out[d] = max(1.0, (here + 1) / (float(np.median(usual)) + 1)) if usual else 1.0
    return out


def _noise(table: StationHealth) -> Float:
    """Picks of no event (n,), as many as in 24 hours of data."""
    full = np.where(np.isfinite(table.hours) & (table.hours > 0), table.hours, 24.0)
    noise: Float = np.maximum(0, table.n_picks - table.n_in_events) * 24.0 / full
    return noise


class _Station:
    """The days of one station, by time."""

    def __init__(self, table: StationHealth, day: Int, own_days: int, storm: list[float]) -> None:
        self.table, self.day, self.own_days, self.storm = table, day, own_days, storm
        self.noise = _noise(table)
        self.n, self.median_s = {"P": table.n_p, "S": table.n_s}, {"P": table.median_p_s, "S": table.median_s_s}
        self.has_data: Bool = ~(table.hours <= 0)  # also where nobody knows

    def judged(self, k: int) -> tuple[list[Finding], Drift, Drift, float]:
        p, s, both = (self.drift(k, phases) for phases in ("P", "S", "PS"))
        found, clock_s = _residuals(p, s, both)
        known = (OK if self.is_known(k) else NOT_JUDGED, "")
        return [known, *self.data(k), *self.silence(k), *found, *self.picks(k)], p, s, clock_s

    def is_known(self, k: int) -> bool:
        """Whether day ``k`` says anything: planned hours, a pick, or events that the station should have picked."""
        _, missed, exposed, _ = self._silent(k)
        return bool(self.table.hours_planned[k] > 0 or self.table.n_picks[k] or (missed and exposed >= USUAL_EVENTS))

    def data(self, k: int) -> list[Finding]:
        """Hours of data."""
        hours, planned = float(self.table.hours[k]), float(self.table.hours_planned[k])
        if not planned > 0:
            return []
        if hours <= 0:
            return [(BAD, f"no data in {planned:.0f} hours")]
        return [(WATCH, f"{hours:.1f} of {planned:.0f} hours of data")] if hours < planned / 2 else []

    def silence(self, k: int) -> list[Finding]:
        """No pick of an event while the neighbours have them."""
        first, missed, exposed, heard = self._silent(k)
        if missed and self.has_data[k] and exposed >= USUAL_EVENTS:
            chance = (1 - min(SUREST, heard / exposed)) ** missed
            for status in (BAD, WATCH):
                if chance < SILENCE[status]:
                    days = int(self.day[k] - self.day[first]) + 1
                    what = "pick of an event" if self.table.n_picks[first : k + 1].any() else "pick"
                    since = f"no {what} for {days} day{'' if days == 1 else 's'}"
                    share = f"of which it picks {100 * heard / exposed:.0f} % as a rule"
                    return [(status, f"{since}; its neighbours had {missed} events, {share}")]
        return self.dead(k)

    def _silent(self, k: int) -> tuple[int, int, int, int]:
        """The first row without a pick of an event since, the events that the neighbours had since while it had data;
        and of the days before those that the neighbours had, and how many of these it picked."""
        first = k + 1
        while first > 0 and self.table.n_in_events[first - 1] == 0 and self.day[k] - self.day[first - 1] < SILENT_DAYS:
            first -= 1
        silent, base = slice(first, k + 1), self._before(first)
        missed = int(self.table.exposed[silent][self.has_data[silent]].sum())
        return first, missed, int(self.table.exposed[base].sum()), int(self.table.heard[base].sum())

    def dead(self, k: int) -> list[Finding]:
        """Far fewer picks than usual, where there used to be many."""
        base = self._before(k)
        usual = self.table.n_picks[base][self.has_data[base]]
        if len(usual) < USUAL_DAYS or not self.has_data[k] or not float(np.median(usual)) >= MANY_PICKS:
            return []
        here, full = int(self.table.n_picks[k]), float(self.table.hours[k])
        expected = float(np.median(usual)) * (full / 24 if np.isfinite(full) else 1.0)
        if here >= FEW * expected or expected < MANY_PICKS / 2:
            return []
        return [(WATCH if here else BAD, f"{here} picks, where {expected:.0f} are usual")]

    def picks(self, k: int) -> list[Finding]:
        """Picks of no event, and how far the others stand out of the noise."""
        base, found = self._before(k), list[Finding]()
        usual = self.noise[base][self.has_data[base]]
        if len(usual) >= USUAL_DAYS:
            expected, here = float(np.median(usual)) * self.storm[k], float(self.noise[k])
            for status in (BAD, WATCH):
                times, more = LOUD[status]
                if here > times * expected and here > expected + more:
                    found.append((status, f"{here:.0f} picks of no event a day, where {expected:.0f} are usual"))
                    break
        snr = self.table.snr_db[base]
        snr, here_db = snr[np.isfinite(snr)], float(self.table.snr_db[k])
        if len(snr) >= USUAL_DAYS and self.table.n_picks[k] >= USUAL_DAYS:
            weaker = float(np.median(snr)) - here_db
            if weaker >= WEAKER_DB:
                found.append((WATCH, f"picks stand {weaker:.0f} dB less out of the noise than usual"))
        return found

    def drift(self, k: int, phases: str) -> Drift:
        """Of the residuals of ``phases`` in the shortest time up to day ``k`` with `RECENT` of them, each against those
        of its phase before."""
        number = sum((self.n[phase] for phase in phases), np.zeros(len(self.day), np.int64))
        if not number[k]:
            return NO_DRIFT
        first, recent = k, int(number[k])
        while recent < RECENT and first > 0 and self.day[k] - self.day[first - 1] < RECENT_DAYS:
            first -= 1
            recent += int(number[first])
        known = [part for part in (self._phase(phase, first, k) for phase in phases) if part is not None]
        if not known:
            return NO_DRIFT
        off_s, weight, variance_s2 = (np.concatenate([part[i] for part in known]) for i in range(3))
        n = float(weight.sum())
        if n < RECENT:
            return NO_DRIFT
        value_s = weighted_median(off_s, weight)
        error_s = 1.2533 * float(np.sqrt(np.sum(weight * variance_s2))) / n
        apart_s = NAN if len(known) < len(phases) or len(phases) == 1 else _apart(known)
        return Drift(value_s, abs(value_s) / error_s, apart_s)

    def _phase(self, phase: str, first: int, k: int) -> tuple[Float, Float, Float] | None:
        """Of days ``first`` to ``k`` how far the residuals are from the usual, their numbers, and the variance of one
        of them with that of the usual; None if nobody knows what is usual, or there are none."""
        n, median_s, base = self.n[phase], self.median_s[phase], self._before(first)
        weight = n[base].astype(np.float64)
        rows = first + np.flatnonzero(n[first : k + 1])
        if weight.sum() < USUAL or not len(rows):
            return None
        usual_s = weighted_median(median_s[base], weight)
        each_s = np.abs(median_s[base] - usual_s) * np.sqrt(weight)  # of a median of n, as of one pick
        scatter_s = max(SCATTER_S, 1.4826 * weighted_median(each_s, weight))
        variance_s2 = scatter_s**2 * (1 + float(n[rows].sum()) / weight.sum())
        return median_s[rows] - usual_s, n[rows].astype(np.float64), np.full(len(rows), variance_s2)

    def _before(self, first: int) -> slice:
        """The rows of the ``own_days`` days before row ``first``."""
        start = int(np.searchsorted(self.day, (self.day[first] if first < len(self.day) else 0) - self.own_days))
        return slice(min(start, first), first)


def _apart(parts: list[tuple[Float, Float, Float]]) -> float:
    one, other = (weighted_median(off_s, weight) for off_s, weight, _ in parts)
    return abs(one - other)


def _residuals(p: Drift, s: Drift, both: Drift) -> tuple[list[Finding], float]:
    """What drifts of P, of S and of both together mean; and how late the clock may be, if both are by as much."""
    status = _drifted(both, CLOCK_SIGMAS)
    if status != OK and both.apart_s <= SAME_S:
        return [(status, f"P and S {_side(both)}: the clock?")], both.value_s
    found = []
    for phase, other, drift in (("P", "S", p), ("S", "P", s)):
        if (status := _drifted(drift, DRIFT_SIGMAS)) != OK:
            hint = f"; too few {other} picks to tell if it is the clock" if np.isnan(both.apart_s) else ""
            found.append((status, f"{phase} {_side(drift)}{hint}"))
    return found, NAN


def _side(drift: Drift) -> str:
    return f"{abs(drift.value_s):.2f} s {'late' if drift.value_s > 0 else 'early'}"


def _drifted(drift: Drift, sigmas: dict[str, float]) -> str:
    for status in (BAD, WATCH):
        if abs(drift.value_s) >= DRIFT_S[status] and drift.sigmas >= sigmas[status]:
            return status
    return OK
