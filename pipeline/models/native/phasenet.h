// PhaseNet (Zhu and Beroza 2019) as SeisBench builds it: kernel 7, stride 4, five levels, batch norm folded.
#pragma once

#include "lanes.h"

namespace phasenet {
using namespace lanes;

constexpr int LEVELS = 5, KERNEL = 7, STRIDE = 4, LENGTH = 3001;
constexpr int SIZES[LEVELS] = {LENGTH, 751, 188, 47, 12};  // positions of each level
constexpr int BEFORE[LEVELS - 1] = {3, 2, 1, 2};           // zeros in front of each down convolution
constexpr int CROPS[LEVELS - 1] = {2, 1, 1, 1};            // what is cut from the front of each up convolution

constexpr int MOST_CLASSES = 8;

struct Settings {
    int32_t inputs, classes, roots;         // channels in and out, filters of the first level
    int32_t detrend, norm;                  // norm: 0 none, 1 standard deviation, 2 peak
    int32_t chosen, columns[MOST_CLASSES];  // which classes are wanted
    int32_t rows[MOST_CLASSES];             // which rows of the waveform are the channels
};

template <class T>
struct Network {
    Conv<Fp32> first;
    Conv<T> same[LEVELS], down[LEVELS - 1], up[LEVELS - 1][STRIDE], merged[LEVELS - 1];
    const float *bias, *weights;  // of the last layer: (classes), (classes, roots)

    Network(Reader& reader, const Settings& set) {
        first = Conv<Fp32>::read(reader, set.inputs, set.roots, KERNEL, 3);
        for (int i = 0; i < LEVELS; i++) {
            const int filters = set.roots << i;
            same[i] = Conv<T>::read(reader, i == 0 ? filters : filters / 2, filters, KERNEL, 3);
            if (i < LEVELS - 1) down[i] = Conv<T>::read(reader, filters, filters, KERNEL, BEFORE[i], STRIDE);
        }
        for (int i = LEVELS - 2; i >= 0; i--) {
            const int filters = set.roots << i;
            for (int phase = 0; phase < STRIDE; phase++) {
                const int taps = phase + STRIDE < KERNEL ? 2 : 1;
                up[i][phase] = Conv<T>::read(reader, 2 * filters, filters, taps, taps - 1);
                up[i][phase].step = STRIDE, up[i][phase].from = phase - CROPS[i];
            }
            merged[i] = Conv<T>::read(reader, 2 * filters, filters, KERNEL, 3);
        }
        bias = reader.take<float>(set.classes);
        weights = reader.take<float>((size_t)set.classes * set.roots);
    }
};

template <class T>
struct Tracks {
    Track<Fp32> input, last;
    Track<T> start, skip[LEVELS], down[LEVELS], up[LEVELS - 1], merged[LEVELS - 1];

    Tracks(Arena& arena, const Settings& set) {
        input = arena.track<Fp32>(LENGTH, set.inputs);
        start = arena.track<T>(LENGTH, set.roots);
        for (int i = 0; i < LEVELS; i++) {
            skip[i] = arena.track<T>(SIZES[i], set.roots << i);
            if (i > 0) down[i] = arena.track<T>(SIZES[i], set.roots << (i - 1));
        }
        for (int i = 0; i < LEVELS - 1; i++) {
            up[i] = arena.track<T>(SIZES[i], set.roots << i);
            if (i > 0) merged[i] = arena.track<T>(SIZES[i], set.roots << i);
        }
        last = arena.track<Fp32>(LENGTH, set.roots);
    }
};

// annotate_batch_pre of SeisBench's PhaseNet.
inline void normalise(Track<Fp32> x, const Settings& set) {
    for (int c = 0; c < set.inputs; c++) {
        subtract(x, c, mean_of(x, c));
        if (set.detrend) detrend(x, c);
        if (set.norm != 0) scale(x, c, set.norm == 2);
    }
}

template <class T>
void transposed(const Conv<T> (&phases)[STRIDE], Track<T> in, Track<T> out) {
    for (const Conv<T>& conv : phases) {
        const int first = conv.from < 0 ? 1 : 0, last = (out.n - 1 - conv.from) / STRIDE;
        convolve<T, T>(conv, in, Track<T>{}, out, first, last - first + 1);
    }
}

// The last layer and the softmax over the classes; the chosen ones go to out (window, chosen, LENGTH).
inline void answer(const float* bias, const float* weights, const Settings& set, Track<Fp32> x, int count, float* out) {
    constexpr int TILE = 64;
    for (int done = 0; done < x.n; done += TILE) {
        const int n = x.n - done < TILE ? x.n - done : TILE;
        Floats chosen[MOST_CLASSES][TILE];
        for (int p = 0; p < n; p++) {
            Floats power[MOST_CLASSES], top = all(-INFINITY), total{};
            for (int k = 0; k < set.classes; k++) {
                Floats sum = all(bias[k]);
                for (int c = 0; c < x.cells; c++) sum = sum + x.at(done + p)[c] * weights[k * x.cells + c];
                power[k] = sum, top = larger(top, sum);
            }
            for (int k = 0; k < set.classes; k++) power[k] = exp(power[k] - top), total = total + power[k];
            for (int i = 0; i < set.chosen; i++) chosen[i][p] = power[set.columns[i]] / total;
        }
        for (int i = 0; i < set.chosen; i++)
            unload(chosen[i], n, out + (int64_t)i * x.n + done, (int64_t)set.chosen * x.n, count);
    }
}

template <class T>
void evaluate(const Network<T>& net, const Tracks<T>& at) {
    convolve<Fp32, T>(net.first, at.input, at.start);
    convolve<T, T>(net.same[0], at.start, at.skip[0]);
    for (int i = 1; i < LEVELS; i++) {
        convolve<T, T>(net.down[i - 1], at.skip[i - 1], at.down[i]);
        convolve<T, T>(net.same[i], at.down[i], at.skip[i]);
    }
    Track<T> below = at.skip[LEVELS - 1];
    for (int i = LEVELS - 2; i > 0; i--) {
        transposed<T>(net.up[i], below, at.up[i]);
        convolve<T, T>(net.merged[i], at.skip[i], at.up[i], at.merged[i], 0, SIZES[i]);
        below = at.merged[i];
    }
    transposed<T>(net.up[0], below, at.up[0]);
    convolve<T, Fp32>(net.merged[0], at.skip[0], at.up[0], at.last, 0, LENGTH);
}

// Bytes of packed weights and of scratch memory.
template <class T>
void sizes(const Settings& set, int64_t* weights, int64_t* scratch) {
    Reader reader;
    Arena arena;
    Network<T>(reader, set), Tracks<T>(arena, set);
    *weights = reader.used, *scratch = arena.used;
}

template <class T>
void answers(const Settings& set, const char* packed, char* scratch, const float* samples, int64_t n,
             const int64_t (*plan)[2], int64_t count, float* out) {
    Reader reader{packed, 0};
    Arena arena{scratch, 0};
    const Network<T> net(reader, set);
    const Tracks<T> at(arena, set);
    for (int64_t done = 0; done < count; done += LANES) {
        const int now = count - done < LANES ? count - done : LANES;
        load({samples, n, set.rows, set.inputs, now, plan + done}, at.input);
        normalise(at.input, set);
        evaluate<T>(net, at);
        answer(net.bias, net.weights, set, at.last, now, out + done * set.chosen * LENGTH);
    }
}

}  // namespace phasenet
