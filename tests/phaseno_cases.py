"""PhaseNO as it is written down, edge by edge, and made-up networks of stations."""

import numpy as np
import torch
from torch.nn import functional

from pipeline.models import phaseno
from pipeline.models.phaseno import NetworkWindow


def edge_by_edge(layer, x, places, edges, at_a_time=None):
    """What a `GraphLayer` is to make of ``x`` (stations, channels, samples): the published equation, naively.

    On every edge (j, i) the message network is evaluated as a whole. ``at_a_time`` so many edges; None: all.
    """
    n, _, samples = x.shape
    total, heard = torch.zeros_like(x), torch.zeros(n, 1, 1, dtype=x.dtype)
    for part in edges.split(at_a_time or max(edges.shape[1], 1), dim=1):
        source, target = part
        place = [places[ends][:, :, None].expand(-1, -1, samples).to(x.dtype) for ends in (source, target)]
        both = torch.cat([x[target], place[0], x[source], place[1]], 1).transpose(1, 2)
        message = layer.edge.fc2(functional.gelu(layer.edge.fc1(both))).transpose(1, 2)
        total = total.index_add(0, target, message)
        heard = heard.index_add(0, target, torch.ones(len(target), 1, 1, dtype=x.dtype))
    mean = total / heard.clamp(min=1)
    return layer.aggre(torch.cat([mean, x], 1))


def known_numbers(network, seed=7):
    """Fill ``network`` with numbers that any program can draw again: uniform, name by name."""
    drawn = np.random.default_rng(seed)
    state = dict(network.named_parameters())
    for name in sorted(state):
        shape = tuple(state[name].shape)
        scale = 2.0 / np.prod(shape[:2]) if "weights1" in name else 1.7 / np.sqrt(max(shape[-1], 3))
        values = drawn.uniform(-scale, scale, shape)
        if state[name].is_complex():
            values = values + 1j * drawn.uniform(-scale, scale, shape)
        state[name].data.copy_(torch.from_numpy(np.asarray(values)))
    return network


def window(stations=5, samples=3000, seed=0, range_km=phaseno.RANGE_KM, span_deg=0.6):
    """Noise with an arrival that moves over a network of stations."""
    drawn = np.random.default_rng(seed)
    latitude, longitude = drawn.uniform(46 - span_deg / 2, 46 + span_deg / 2, (2, stations)) + np.array(
        [[0.0], [-33.0]]
    )
    records = drawn.normal(0, 100, (stations, 3, samples)).astype(np.float32)
    for row in range(stations):
        first = samples // 3 + 40 * row
        records[row, :, first:] += (900 * np.sin(np.arange(samples - first) / 4)).astype(np.float32)
    where = phaseno.places(latitude, longitude, (46.0, 13.0))
    return NetworkWindow(torch.from_numpy(records), where, phaseno.edges(where, range_km))
