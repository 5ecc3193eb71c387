// EQTransformer (Mousavi et al. 2020) as SeisBench builds it: both original flavours and SeisBench's own, batch norm
// folded, only the decoders of the columns that are wanted, and of these only the positions that are.
//
// A decoder repeats every position and then convolves with K taps. Here each of the two phases of the output is a
// convolution of the positions before they are repeated, with (K + 1) / 2 taps that are sums of the K.
#pragma once

#include <vector>

#include "lanes.h"
#include "sequence.h"

namespace eqtransformer {
using namespace lanes;
using sequence::Affine;
using sequence::UNITS;

constexpr int LENGTH = 6000, LEVELS = 7, MOST = 8, TAPER = 6;  // MOST rows, columns
constexpr int FILTERS[LEVELS] = {8, 16, 16, 32, 32, 64, 64}, KERNELS[LEVELS] = {11, 9, 7, 7, 5, 5, 3};
constexpr int SIZES[LEVELS + 1] = {LENGTH, 3000, 1500, 750, 375, 188, 94, 47};
constexpr int RESIDUAL_KERNELS[] = {3, 3, 3, 3, 2, 3, 2}, DEEP = FILTERS[LEVELS - 1], STEPS = SIZES[LEVELS];
constexpr int LAST = 11, HALO = LAST / 2 + 1;  // taps of the last convolution; what it needs on either side, even
constexpr int CHUNK = 48, LAST_CHUNK = 600;    // positions that are worked on together, so as to stay in the cache
constexpr int EDGE = 4;                        // positions next to a crop, made from the repeated ones

struct Settings {
    int32_t inputs, blocks, original;     // channels in, bidirectional LSTMs, whether it crops as the original does
    int32_t hard_encoder, hard_picks;     // hard sigmoids in the bidirectional LSTMs, in those of the picks
    int32_t by_peak, chosen, first, end;  // normalised by the peak or not; number of columns; positions wanted
    int32_t detection[MOST], rows[MOST];  // whether a column is the detection; rows of the waveform
    float eps, taper[TAPER];              // of the attentions; factors of a window's first samples
};

template <class T>
struct Residual {
    Affine norm;
    Conv<T> first, second;
    Residual(Reader& reader, int taps)
        : norm(reader, DEEP),
          first(Conv<T>::read(reader, DEEP, DEEP, taps, (taps - 1) / 2)),
          second(Conv<T>::read(reader, DEEP, DEEP, taps, (taps - 1) / 2)) {}
};

template <class T>
struct Up {
    int taps, front = 0;  // of the repeated positions, `front` are cropped
    bool cropped;         // there or at the end
    Conv<T> phases[2], plain;
    Up(Reader& reader, const Settings& set, int level)
        : taps(KERNELS[LEVELS - 1 - level]), cropped(level == (set.original ? 3 : 2)) {
        const int inputs = level == 0 ? UNITS : FILTERS[LEVELS - level], outputs = FILTERS[LEVELS - 1 - level];
        if (cropped && set.original) front = 1;
        for (int phase = 0; phase < 2; phase++) {
            phases[phase] = Conv<T>::read(reader, inputs, outputs, (taps + 1) / 2, (taps / 2 + 1 - phase) / 2);
            phases[phase].step = 2, phases[phase].from = phase - front;
        }
        if (cropped) plain = Conv<T>::read(reader, inputs, outputs, taps, 0);
    }
};

// Positions [first, end).
struct Range {
    int first, end;
    Range wider(int by, int n) const { return {first > by ? first - by : 0, end + by < n ? end + by : n}; }
};

template <class T>
struct Branch {
    bool detection;
    Conv<Fp32> gates;
    std::vector<sequence::Attention> attention;  // one, or none before the detection
    std::vector<Up<T>> ups;
    Range wanted[LEVELS];         // of the output of each of `ups`
    const float *bias, *weights;  // of the last layer, (1), (taps, channels)
    Branch(Reader& reader, const Settings& set, bool is_detection) : detection(is_detection) {
        if (!detection) gates = Conv<Fp32>::read(reader, 2 * UNITS, 4 * UNITS, 1, 0);
        if (!detection) attention.emplace_back(reader);
        for (int level = 0; level < LEVELS; level++) ups.emplace_back(reader, set, level);
        bias = reader.take<float>(1), weights = reader.take<float>(LAST * FILTERS[0]);
        Range range = Range{set.first, set.end}.wider(HALO, LENGTH);
        for (int level = LEVELS - 1; level >= 0; level--) {
            wanted[level] = range;
            const int n = size(set, level - 1);
            range = Range{range.first / 2, (range.end + ups[level].front + 1) / 2}.wider(ups[level].taps / 4 + 1, n);
        }
    }
    static int size(const Settings& set, int level) {  // positions that a level of `ups` gives
        return SIZES[LEVELS - 1 - level] + (set.original && level == 2 ? 1 : 0);
    }
};

// The weights, in the order in which eqtransformer.py packs them.
template <class T>
struct Network {
    Conv<Fp32> first;
    Conv<T> down[LEVELS];
    std::vector<Residual<T>> residuals;
    std::vector<sequence::Bidirectional> blocks;
    std::vector<sequence::Transformer> transformers;
    std::vector<Branch<T>> branches;

    Network(Reader& reader, const Settings& set) {
        first = Conv<Fp32>::read(reader, set.inputs, FILTERS[0], KERNELS[0], KERNELS[0] / 2);
        for (int i = 1; i < LEVELS; i++)
            down[i] = Conv<T>::read(reader, FILTERS[i - 1], FILTERS[i], KERNELS[i], KERNELS[i] / 2);
        for (int taps : RESIDUAL_KERNELS) residuals.emplace_back(reader, taps);
        for (int i = 0; i < set.blocks; i++) blocks.emplace_back(reader, i == 0 ? DEEP : UNITS);
        for (int i = 0; i < 2; i++) transformers.emplace_back(reader);
        for (int i = 0; i < set.chosen; i++) branches.emplace_back(reader, set, set.detection[i] != 0);
    }
};

// Scratch memory: two areas that the layers write to in turn, two for what is small, one for a layer's own needs.
// An Arena is handed on by value: what the callee takes from it is free again when it returns.
struct Areas {
    Arena turn[2], small[2], own;
    size_t used = 0;
    Areas(char* memory, int inputs) {
        const size_t most = 3000 * 16 > LENGTH * inputs ? 3000 * 16 : LENGTH * inputs;
        const size_t last = (LAST_CHUNK + 2 * HALO + 2 * PAD) * (FILTERS[0] + 1), deep = (STEPS + 2 * PAD) * DEEP;
        const size_t vectors[] = {most + 2 * PAD * 16, most + 2 * PAD * 16, deep, deep, last + 8 * deep};
        Arena* const arenas[] = {&turn[0], &turn[1], &small[0], &small[1], &own};
        for (int i = 0; i < 5; i++) {
            arenas[i]->memory = memory == nullptr ? nullptr : memory + used;
            used += vectors[i] * sizeof(Floats);
        }
    }
};

template <class T>
INLINE Track<T> track(Arena area, int n, int channels) {
    return area.track<T>(n, channels);
}

// Divides by the standard deviation of all channels together (of their number - 1), plus 1e-10.
inline void scale_together(Track<Fp32> x) {
    double sum[LANES] = {}, squares[LANES] = {};
    const int n = x.n * x.cells;
    for (int i = 0; i < n; i++)
        for (int lane = 0; lane < LANES; lane++) {
            const double value = x.start[i][lane];
            sum[lane] += value, squares[lane] += value * value;
        }
    Floats divisor{};
    for (int lane = 0; lane < LANES; lane++) {
        const double spread = squares[lane] - sum[lane] * sum[lane] / n;
        divisor[lane] = (float)std::sqrt((spread > 0 ? spread : 0) / (n - 1)) + 1e-10f;
    }
    for (int i = 0; i < n; i++) x.start[i] = x.start[i] / divisor;
}

// annotate_batch_pre of SeisBench's EQTransformer.
inline void normalise(Track<Fp32> x, const Settings& set) {
    for (int c = 0; c < x.cells; c++) subtract(x, c, mean_of(x, c));
    if (set.by_peak)
        for (int c = 0; c < x.cells; c++) scale(x, c, true);
    else scale_together(x);
    for (int i = 0; i < TAPER; i++)
        for (int c = 0; c < x.cells; c++) {
            x.at(i)[c] = x.at(i)[c] * set.taper[i];
            x.at(x.n - 1 - i)[c] = x.at(x.n - 1 - i)[c] * set.taper[i];
        }
}

// FP32 channels, a multiple of eight, as cells.
template <class T>
INLINE void keep(typename T::Cell* out, const Floats* y, int channels) {
    for (int c = 0; c < channels; c += 8) {
        Floats eight[8];
        for (int i = 0; i < 8; i++) eight[i] = y[c + i];
        T::template store<8>(out + c / T::CHANNELS, eight);
    }
}

// relu of the convolution, then the larger of every two positions; a last one without a partner stays.
template <class In, class Out>
void pooled(Conv<In> conv, Track<In> x, Track<Out> out, Arena own) {
    const Track<Fp32> wide = own.track<Fp32>(CHUNK, conv.outputs);
    for (int start = 0; start < x.n; start += CHUNK) {
        const int count = x.n - start < CHUNK ? x.n - start : CHUNK;
        conv.from = -start;
        convolve<In, Fp32>(conv, x, Track<In>{}, wide, start, count);
        for (int p = 0; p < count; p += 2) {
            const Floats *one = wide.at(p), *two = wide.at(p + 1 < count ? p + 1 : p);
            Floats y[DEEP];
            for (int c = 0; c < conv.outputs; c++) y[c] = larger(one[c], two[c]);
            keep<Out>(out.at((start + p) / 2), y, conv.outputs);
        }
    }
}

template <class T>
void encode(const Network<T>& net, Track<Fp32> input, Areas& at, Track<Fp32> out) {
    Track<T> x = track<T>(at.turn[0], SIZES[1], FILTERS[0]);
    pooled<Fp32, T>(net.first, input, x, at.own);
    for (int i = 1; i < LEVELS - 1; i++) {
        const Track<T> y = track<T>(at.turn[i % 2], SIZES[i + 1], FILTERS[i]);
        pooled<T, T>(net.down[i], x, y, at.own);
        x = y;
    }
    pooled<T, Fp32>(net.down[LEVELS - 1], x, out, at.own);
}

// x += the two convolutions of relu(norm(x)).
template <class T>
void add_residual(const Residual<T>& layer, Track<Fp32> x, Arena own) {
    const Track<T> y = own.track<T>(STEPS, DEEP), z = own.track<T>(STEPS, DEEP);
    const Track<Fp32> sum = own.track<Fp32>(STEPS, DEEP);
    for (int p = 0; p < STEPS; p++) {
        Floats row[DEEP];
        for (int c = 0; c < DEEP; c++)
            row[c] = larger(x.at(p)[c] * layer.norm.gain[c] + layer.norm.shift[c], Floats{});
        keep<T>(y.at(p), row, DEEP);
    }
    convolve<T, T>(layer.first, y, z);
    convolve<T, Fp32>(layer.second, z, sum, false);
    for (int i = 0; i < STEPS * DEEP; i++) x.start[i] = x.start[i] + sum.start[i];
}

// What all branches share: (STEPS, UNITS), in one of the small areas; gives the other one.
template <class T>
Arena describe(const Network<T>& net, const Settings& set, Track<Fp32> input, Areas& at, Track<Fp32>& out) {
    out = track<Fp32>(at.small[0], STEPS, DEEP);
    encode(net, input, at, out);
    for (const Residual<T>& layer : net.residuals) add_residual(layer, out, at.own);
    int turn = 0;
    for (const sequence::Bidirectional& block : net.blocks) {
        const Track<Fp32> next = track<Fp32>(at.small[turn ^= 1], STEPS, UNITS);
        block(out, set.hard_encoder, next, at.own);
        out = next;
    }
    for (const sequence::Transformer& layer : net.transformers) layer(out, set.eps, at.own);
    return at.small[turn ^ 1];
}

// relu of the convolution of the repeated positions. Position p of the layer goes to position p + offset of `out`.
template <class T, class Out>
void repeated(const Up<T>& layer, Track<T> x, Track<Out> out, Range range, int offset) {
    for (Conv<T> conv : layer.phases) {
        const int q = (range.first - conv.from + 1) / 2, stop = (range.end - conv.from + 1) / 2;
        conv.from += offset;
        convolve<T, Out>(conv, x, Track<T>{}, out, q, stop - q);
    }
}

// Positions first .. first + EDGE - 1 next to a crop, where sums of taps will not do: what is cropped counts as zero.
template <class T>
void edge(const Up<T>& layer, Track<T> x, Track<T> out, int first, Arena own) {
    const Track<T> seen = own.track<T>(EDGE + layer.taps - 1, layer.plain.inputs);
    for (int i = 0; i < seen.n; i++) {
        const int p = first + i - layer.taps / 2;
        const typename T::Cell* from = x.at((p + layer.front) / 2);
        for (int c = 0; c < x.cells; c++) seen.at(i)[c] = p >= 0 && p < out.n ? from[c] : typename T::Cell{};
    }
    Conv<T> conv = layer.plain;
    conv.from = first;
    convolve<T, T>(conv, seen, Track<T>{}, out, 0, EDGE);
}

// All repetitions but the last.
template <class T>
Track<T> decode(const Branch<T>& branch, const Settings& set, Track<Fp32> from, Areas& at) {
    Track<T> x = track<T>(at.turn[1], STEPS, UNITS);
    for (int p = 0; p < STEPS; p++) keep<T>(x.at(p), from.at(p), UNITS);
    for (int i = 0; i < LEVELS - 1; i++) {
        const Up<T>& layer = branch.ups[i];
        const Range range = branch.wanted[i];
        const Track<T> y = track<T>(at.turn[i % 2], Branch<T>::size(set, i), layer.phases[0].outputs);
        repeated<T, T>(layer, x, y, range, 0);
        if (layer.cropped && layer.front > 0 && range.first == 0) edge(layer, x, y, 0, at.own);
        if (layer.cropped && range.end == y.n) edge(layer, x, y, y.n - EDGE, at.own);
        x = y;
    }
    return x;
}

// The last convolution and the sigmoid, for `count` positions of which x has HALO more on either side.
inline void probabilities(const float* bias, const float* weights, Track<Fp32> x, int count, Floats* y) {
    constexpr int TILE = 8;
    for (int p = 0; p < count; p += TILE) {
        Floats sum[TILE];
        for (int j = 0; j < TILE; j++) sum[j] = all(bias[0]);
        const Floats* at = x.at(p + HALO - LAST / 2);
        for (int i = 0; i < LAST * FILTERS[0]; i++)
#pragma GCC unroll 8
            for (int j = 0; j < TILE; j++) sum[j] = sum[j] + at[j * FILTERS[0] + i] * weights[i];
        for (int j = 0; j < TILE; j++) y[p + j] = sigmoid(sum[j]);
    }
}

// The last repetition and what follows, chunk by chunk. The answers of windows are `apart` floats from one another.
template <class T>
void finish(const Branch<T>& branch, const Settings& set, Track<T> x, Arena own, float* out, int64_t apart, int count) {
    const Track<Fp32> wide = own.track<Fp32>(LAST_CHUNK + 2 * HALO, FILTERS[0]);
    Floats y[LAST_CHUNK + PAD];
    for (int start = set.first; start < set.end; start += LAST_CHUNK) {
        const int n = set.end - start < LAST_CHUNK ? set.end - start : LAST_CHUNK;
        const Range range = Range{start, start + n}.wider(HALO, LENGTH);
        std::memset((void*)wide.start, 0, HALO * FILTERS[0] * sizeof(Floats));
        std::memset((void*)wide.at(n + HALO), 0, HALO * FILTERS[0] * sizeof(Floats));
        repeated<T, Fp32>(branch.ups[LEVELS - 1], x, wide, range, HALO - start);
        probabilities(branch.bias, branch.weights, wide, n, y);
        unload(y, n, out + start, apart, count);
    }
}

// Bytes of packed weights and of scratch memory.
template <class T>
void sizes(const Settings& set, int64_t* weights, int64_t* scratch) {
    Reader reader;
    Network<T>(reader, set);
    *weights = reader.used, *scratch = Areas(nullptr, set.inputs).used;
}

template <class T>
void answers(const Settings& set, const char* packed, char* scratch, const float* samples, int64_t n,
             const int64_t (*plan)[2], int64_t count, float* out) {
    Reader reader{packed, 0};
    const Network<T> net(reader, set);
    Areas at(scratch, set.inputs);
    for (int64_t done = 0; done < count; done += LANES) {
        const int now = count - done < LANES ? count - done : LANES;
        const Track<Fp32> input = track<Fp32>(at.turn[1], LENGTH, set.inputs);
        load({samples, n, set.rows, set.inputs, now, plan + done}, input);
        normalise(input, set);
        Track<Fp32> state;
        const Arena spare = describe(net, set, input, at, state);
        for (int i = 0; i < set.chosen; i++) {
            const Branch<T>& branch = net.branches[i];
            Track<Fp32> seen = state;
            if (!branch.detection) {
                Arena own = at.own;
                const Track<Fp32> found = own.track<Fp32>(STEPS, UNITS);
                sequence::lstm(branch.gates, state, set.hard_picks, false, found, own);
                seen = track<Fp32>(spare, STEPS, UNITS);
                branch.attention[0](found, set.eps, 1, seen, own);
            }
            const Track<T> x = decode(branch, set, seen, at);
            finish(branch, set, x, at.own, out + (done * set.chosen + i) * LENGTH, (int64_t)set.chosen * LENGTH, now);
        }
    }
}

}  // namespace eqtransformer

extern "C" {

void eqtransformer_sizes(const eqtransformer::Settings* settings, int32_t bf16, int64_t* weights, int64_t* scratch) {
#if defined(__AVX512BF16__)
    if (bf16) return eqtransformer::sizes<lanes::Bf16>(*settings, weights, scratch);
#endif
    eqtransformer::sizes<lanes::Fp32>(*settings, weights, scratch);
}

// Samples (rows, n) -> positions [first, end) of out (count, chosen, LENGTH) for windows plan (count, 2) of
// (start, samples).
void eqtransformer_answers(const eqtransformer::Settings* settings, int32_t bf16, const char* weights, char* scratch,
                           const float* samples, int64_t n, const int64_t (*plan)[2], int64_t count, float* out) {
#if defined(__AVX512BF16__)
    if (bf16) return eqtransformer::answers<lanes::Bf16>(*settings, weights, scratch, samples, n, plan, count, out);
#endif
    eqtransformer::answers<lanes::Fp32>(*settings, weights, scratch, samples, n, plan, count, out);
}

}  // extern "C"
