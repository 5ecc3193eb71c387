// One window per SIMD lane: vectors, activations and the convolution that both networks are made of.
//
// LANES windows go through the network together. An activation is a Track: cell (p, c) is one vector that holds
// position p of channel c (Bf16: of channels 2c and 2c + 1) of every window. Lanes never meet and every sum has one
// order, so the answer to a window depends neither on its neighbours nor, in FP32, on the width of the vectors.
// Every product is written to feed exactly one sum, and build.py has the compiler fuse the two always; never compile
// with -ffast-math.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#if defined(__AVX512BF16__)
#include <immintrin.h>
#endif

#define INLINE inline __attribute__((always_inline))

namespace lanes {

#if defined(__AVX512F__)
constexpr int LANES = 16, OUTPUTS = 8;  // OUTPUTS x POSITIONS sums must fit the registers
#elif defined(__AVX__)
constexpr int LANES = 8, OUTPUTS = 4;
#elif defined(__aarch64__)
constexpr int LANES = 4, OUTPUTS = 8;
#else
constexpr int LANES = 4, OUTPUTS = 4;
#endif
constexpr int POSITIONS = 3;
constexpr int PACK = 8;  // output channels that lie side by side in packed weights
constexpr int PAD = 8;   // zero positions on either side of a Track: the most a convolution may reach out

typedef float Floats __attribute__((vector_size(4 * LANES)));
typedef int32_t Ints __attribute__((vector_size(4 * LANES)));

INLINE Floats all(float value) { return Floats{} + value; }
INLINE Floats pick(Floats x, Floats y, Ints lanes) {  // of the lanes of x, then those of y
#if defined(__clang__)
    Floats picked;
    for (int i = 0; i < LANES; i++) picked[i] = lanes[i] < LANES ? x[lanes[i]] : y[lanes[i] - LANES];
    return picked;
#else
    return __builtin_shuffle(x, y, lanes);
#endif
}
INLINE Floats larger(Floats x, Floats y) { return x > y ? x : y; }
INLINE Floats smaller(Floats x, Floats y) { return x < y ? x : y; }

// e^x to 2 units in the last place for -87 <= x <= 88; x beyond is taken as the limit. Cephes' polynomial.
INLINE Floats exp(Floats x) {
    x = smaller(larger(x, all(-87.0f)), all(88.0f));
    const float magic = 12582912.0f;  // 1.5 * 2^23: adding it rounds to an integer that sits in the low bits
    const Floats shifted = x * 1.44269504088896341f + magic;
    const Floats whole = shifted - magic;
    Floats r = x - whole * 0.693359375f;
    r = r - whole * -2.12194440e-4f;
    Floats p = all(1.9875691500e-4f);
    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    const Floats squared = r * r;
    p = p * squared + r;
    p = p + 1.0f;
    return (Floats)((Ints)p + ((Ints)shifted << 23));
}
INLINE Floats sigmoid(Floats x) { return 1.0f / (exp(-x) + 1.0f); }
INLINE Floats tanh(Floats x) { return 1.0f - 2.0f / (exp(x + x) + 1.0f); }

// How activations are kept and multiplied. Sums are FP32 in both.
struct Fp32 {
    typedef Floats Cell;
    typedef float Weight;
    static constexpr int CHANNELS = 1;  // of one cell
    static INLINE Floats add_product(Floats sum, Cell x, Weight w) { return sum + x * w; }
    template <int N>
    static INLINE void store(Cell* out, const Floats (&y)[N]) {
        for (int i = 0; i < N; i++) out[i] = y[i];
    }
};

#if defined(__AVX512BF16__)
struct Bf16 {
    typedef Ints Cell;       // channel 2c in the low half of each 32 bits, 2c + 1 in the high half
    typedef int32_t Weight;  // the same of two weights
    static constexpr int CHANNELS = 2;
    static INLINE Floats add_product(Floats sum, Cell x, Weight w) {
        return (Floats)_mm512_dpbf16_ps((__m512)sum, (__m512bh)x, (__m512bh)_mm512_set1_epi32(w));
    }
    static INLINE Cell pair(Floats even, Floats odd) {  // rounded to nearest, ties to even
        static const int16_t order[32] = {0, 16, 1, 17, 2,  18, 3,  19, 4,  20, 5,  21, 6,  22, 7,  23,
                                          8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31};
        const __m512i both = (__m512i)_mm512_cvtne2ps_pbh((__m512)odd, (__m512)even);
        return (Cell)_mm512_permutexvar_epi16(_mm512_loadu_si512(order), both);
    }
    template <int N>
    static INLINE void store(Cell* out, const Floats (&y)[N]) {
        static_assert(N % 2 == 0, "two channels a cell");
        for (int i = 0; i < N; i += 2) out[i / 2] = pair(y[i], y[i + 1]);
    }
};
#endif

// Activations of one block of LANES windows: n positions of `cells` vectors, zeros for PAD positions on either side.
template <class T>
struct Track {
    typename T::Cell* start = nullptr;  // of position 0
    int n = 0, cells = 0;
    INLINE typename T::Cell* at(int position) const { return start + (ptrdiff_t)position * cells; }
};

// Hands out tracks one after the other from memory aligned to 64 bytes. Without memory it only counts bytes.
struct Arena {
    char* memory = nullptr;
    size_t used = 0;
    template <class T>
    Track<T> track(int n, int channels) {
        Track<T> made{nullptr, n, (channels + T::CHANNELS - 1) / T::CHANNELS};
        const size_t position = made.cells * sizeof(typename T::Cell);
        if (memory != nullptr) {
            made.start = (typename T::Cell*)(memory + used + PAD * position);
            std::memset((void*)made.at(-PAD), 0, PAD * position);
            std::memset((void*)made.at(n), 0, PAD * position);
        }
        used += (n + 2 * PAD) * position;
        return made;
    }
};

// Reads the packed weights (packing.py) in the order in which they were written. Without memory it only counts.
struct Reader {
    const char* memory = nullptr;
    size_t used = 0;
    template <class W>
    const W* take(size_t count) {
        const W* taken = memory == nullptr ? nullptr : (const W*)(memory + used);
        used += count * sizeof(W);
        return taken;
    }
};

// A convolution: out(step * q + from, o) = bias[o] + sum over taps k and channels c of
// weight[o, k, c] * in(stride * q + k - before, c).
// `weights` are [output / PACK][tap][cell][PACK] (packing.py: convolution), outputs filled up to PACK with zeros.
// A transposed convolution of stride s is s of them, one for each phase of its output, with step = s.
template <class In>
struct Conv {
    const float* bias = nullptr;
    const typename In::Weight* weights = nullptr;
    int inputs = 0, outputs = 0, taps = 0, before = 0;
    int stride = 1, step = 1, from = 0;

    static Conv read(Reader& reader, int inputs, int outputs, int taps, int before, int stride = 1) {
        Conv made;
        const int filled = (outputs + PACK - 1) / PACK * PACK, cells = (inputs + In::CHANNELS - 1) / In::CHANNELS;
        made.bias = reader.take<float>(filled);
        made.weights = reader.take<typename In::Weight>((size_t)filled * taps * cells);
        made.inputs = inputs, made.outputs = outputs, made.taps = taps, made.before = before, made.stride = stride;
        return made;
    }
};

// Adds one tap of `cells` cells to the sums; x of the next position lies `apart` cells further. Gives the next weights.
template <class In, int N, int M>
INLINE const typename In::Weight* add_tap(Floats (&sum)[M][N], const typename In::Cell* x, ptrdiff_t apart,
                                          const typename In::Weight* w, int cells) {
    for (int c = 0; c < cells; c++, w += PACK) {
        typename In::Cell here[M];
#pragma GCC unroll 8
        for (int j = 0; j < M; j++) here[j] = x[j * apart + c];
#pragma GCC unroll 8
        for (int i = 0; i < N; i++)
#pragma GCC unroll 8
            for (int j = 0; j < M; j++) sum[j][i] = In::add_product(sum[j][i], here[j], w[i]);
    }
    return w;
}

// Outputs [first, first + N) at positions q .. q + M - 1.
template <class In, class Out, int N, int M>
INLINE void convolve_block(const Conv<In>& conv, Track<In> a, Track<In> b, Track<Out> out, int q, int first,
                           bool relu) {
    Floats sum[M][N];
#pragma GCC unroll 8
    for (int j = 0; j < M; j++)
#pragma GCC unroll 8
        for (int i = 0; i < N; i++) sum[j][i] = all(conv.bias[first + i]);
    const ptrdiff_t group = (ptrdiff_t)conv.taps * (a.cells + b.cells) * PACK;
    const typename In::Weight* w = conv.weights + first / PACK * group + first % PACK;
    for (int k = 0; k < conv.taps; k++) {
        const int p = conv.stride * q + k - conv.before;
        w = add_tap<In, N, M>(sum, a.at(p), (ptrdiff_t)conv.stride * a.cells, w, a.cells);
        if (b.cells > 0) w = add_tap<In, N, M>(sum, b.at(p), (ptrdiff_t)conv.stride * b.cells, w, b.cells);
    }
#pragma GCC unroll 8
    for (int j = 0; j < M; j++) {
        Floats y[N];
#pragma GCC unroll 8
        for (int i = 0; i < N; i++) y[i] = relu ? larger(sum[j][i], Floats{}) : sum[j][i];
        Out::template store<N>(out.at(conv.step * (q + j) + conv.from) + first / Out::CHANNELS, y);
    }
}

template <class In, class Out, int M>
INLINE void convolve_positions(const Conv<In>& conv, Track<In> a, Track<In> b, Track<Out> out, int q, bool relu) {
    int first = 0;
    for (; first + OUTPUTS <= conv.outputs; first += OUTPUTS)
        convolve_block<In, Out, OUTPUTS, M>(conv, a, b, out, q, first, relu);
    for (; first < conv.outputs; first += Out::CHANNELS)
        convolve_block<In, Out, Out::CHANNELS, M>(conv, a, b, out, q, first, relu);
}

// Evaluates `conv` for q = first .. first + count - 1; its input channels are those of `a`, then those of `b` (a track
// without cells if there is none). Positions of `out` outside its n are not written if step * q + from stays inside.
template <class In, class Out>
__attribute__((noinline)) void convolve(const Conv<In>& conv, Track<In> a, Track<In> b, Track<Out> out, int first,
                                        int count, bool relu = true) {
    if (count < POSITIONS) {
        for (int q = first; q < first + count; q++) convolve_positions<In, Out, 1>(conv, a, b, out, q, relu);
        return;
    }
    for (int done = 0; done < count; done += POSITIONS) {  // the last ones are made twice rather than one by one
        const int q = first + (done + POSITIONS <= count ? done : count - POSITIONS);
        convolve_positions<In, Out, POSITIONS>(conv, a, b, out, q, relu);
    }
}

// The whole of `out`.
template <class In, class Out>
INLINE void convolve(const Conv<In>& conv, Track<In> a, Track<Out> out, bool relu = true) {
    convolve<In, Out>(conv, a, Track<In>{}, out, 0, out.n, relu);
}

// The LANES windows that go together: rows of samples (row, n), windows (start, samples) of a total of `count`.
struct Windows {
    const float* samples;
    int64_t n;
    const int32_t* rows;
    int channels, count;
    const int64_t (*plan)[2];
};

// One step of the transposition: swaps the blocks of S x S off the diagonal of 2 S x 2 S.
template <int S>
INLINE void swap_blocks(Floats (&x)[LANES]) {
    Ints low{}, high{};  // which lanes of x[i] and of x[i + S], counted on, go where
    for (int lane = 0; lane < LANES; lane++) {
        low[lane] = lane & S ? LANES + lane - S : lane;
        high[lane] = lane & S ? LANES + lane : lane + S;
    }
    for (int i = 0; i < LANES; i++) {
        if (i & S) continue;
        const Floats one = x[i], two = x[i + S];
        x[i] = pick(one, two, low), x[i + S] = pick(one, two, high);
    }
}

// x[i][lane] and x[lane][i] change places.
INLINE void transpose(Floats (&x)[LANES]) {
    swap_blocks<1>(x);
    swap_blocks<2>(x);
    if constexpr (LANES > 4) swap_blocks<4 % LANES>(x);
    if constexpr (LANES > 8) swap_blocks<8 % LANES>(x);
}

// Lane l of x(p, c) = sample p of channel c of window l. A window shorter than x.n is demeaned and followed by
// zeros; lanes without a window are zero.
inline void load(const Windows& windows, Track<Fp32> x) {
    for (int c = 0; c < windows.channels; c++) {
        const float* row = windows.samples + windows.rows[c] * windows.n;
        const float* from[LANES];
        int64_t size[LANES], whole = x.n;  // samples that all windows have
        float mean[LANES];
        for (int lane = 0; lane < LANES; lane++) {
            size[lane] = lane < windows.count ? windows.plan[lane][1] : 0;
            from[lane] = size[lane] > 0 ? row + windows.plan[lane][0] : row;
            double sum = 0;
            for (int64_t p = 0; size[lane] < x.n && p < size[lane]; p++) sum += from[lane][p];
            mean[lane] = size[lane] > 0 ? (float)(sum / (double)size[lane]) : 0.0f;
            whole = size[lane] < whole ? size[lane] : whole;
        }
        int p = 0;
        for (; p + LANES <= whole; p += LANES) {
            Floats block[LANES];
            for (int lane = 0; lane < LANES; lane++) {
                std::memcpy(&block[lane], from[lane] + p, sizeof(Floats));
                block[lane] = block[lane] - mean[lane];
            }
            transpose(block);
            for (int i = 0; i < LANES; i++) x.at(p + i)[c] = block[i];
        }
        for (; p < x.n; p++)
            for (int lane = 0; lane < LANES; lane++)
                x.at(p)[c][lane] = p < size[lane] ? from[lane][p] - mean[lane] : 0.0f;
    }
}

// Writes n positions of y to out[lane * apart + p] for lanes < count.
inline void unload(const Floats* y, int n, float* out, int64_t apart, int count) {
    int p = 0;
    for (; p + LANES <= n; p += LANES) {
        Floats block[LANES];
        std::memcpy(block, y + p, sizeof(block));
        transpose(block);
        for (int lane = 0; lane < count; lane++) std::memcpy(out + lane * apart + p, &block[lane], sizeof(Floats));
    }
    for (; p < n; p++)
        for (int lane = 0; lane < count; lane++) out[lane * apart + p] = y[p][lane];
}

// Mean of each lane over the positions of channel c, summed in FP64 and rounded.
inline Floats mean_of(Track<Fp32> x, int c) {
    double sum[LANES] = {};
    for (int p = 0; p < x.n; p++)
        for (int lane = 0; lane < LANES; lane++) sum[lane] += x.at(p)[c][lane];
    Floats mean;
    for (int lane = 0; lane < LANES; lane++) mean[lane] = (float)(sum[lane] / x.n);
    return mean;
}

inline void subtract(Track<Fp32> x, int c, Floats value) {
    for (int p = 0; p < x.n; p++) x.at(p)[c] -= value;
}

// Takes the least-squares line out of each lane of channel c, whose mean is zero.
inline void detrend(Track<Fp32> x, int c) {
    double product[LANES] = {}, squares = 0;
    const double step = 2.0 / (x.n - 1);
    for (int p = 0; p < x.n; p++) {
        const double ramp = p * step - 1;
        squares += ramp * ramp;
        for (int lane = 0; lane < LANES; lane++) product[lane] += ramp * x.at(p)[c][lane];
    }
    Floats slope;
    for (int lane = 0; lane < LANES; lane++) slope[lane] = (float)(product[lane] / squares);
    for (int p = 0; p < x.n; p++) x.at(p)[c] = x.at(p)[c] - slope * (float)(p * step - 1);
}

// Divides each lane of channel c by its largest magnitude or its standard deviation (of n - 1), plus 1e-10.
inline void scale(Track<Fp32> x, int c, bool by_peak) {
    Floats peak{}, size;
    double sum[LANES] = {}, squares[LANES] = {};
    for (int p = 0; p < x.n; p++) {
        const Floats y = x.at(p)[c];
        peak = larger(peak, larger(y, -y));
        for (int lane = 0; lane < LANES; lane++) {
            const double value = y[lane];
            sum[lane] += value;
            squares[lane] += value * value;
        }
    }
    for (int lane = 0; lane < LANES; lane++) {
        const double spread = squares[lane] - sum[lane] * sum[lane] / x.n;
        size[lane] = by_peak ? peak[lane] : (float)std::sqrt((spread > 0 ? spread : 0) / (x.n - 1));
    }
    const Floats divisor = size + 1e-10f;
    for (int p = 0; p < x.n; p++) x.at(p)[c] = x.at(p)[c] / divisor;
}

}  // namespace lanes
