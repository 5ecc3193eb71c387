// What works on a short sequence as a whole: LSTMs, additive attention, layer norm, the transformer of both.
#pragma once

#include "lanes.h"

namespace sequence {
using namespace lanes;

constexpr int UNITS = 16, SCORES = 32, HIDDEN = 128;  // channels of a sequence, of its scores, in a transformer
constexpr int LONGEST = 64;
constexpr float STEEP = 21.0f, FULL = 1.0e12f;  // e^(4 STEEP) is finite; 1 - 2 / (FULL + 1) is 1

INLINE Floats hard_sigmoid(Floats x) { return smaller(larger(x * 0.2f + 0.5f, Floats{}), all(1.0f)); }

// One direction of an LSTM: gates i, f, g, o of the input and of the output of the step before.
inline void lstm(Conv<Fp32> gates, Track<Fp32> x, bool hard, bool backward, Track<Fp32> out, Arena own) {
    const Track<Fp32> sums = own.track<Fp32>(1, 4 * UNITS);
    Track<Fp32> before = out;
    before.start += backward ? UNITS : -UNITS;
    Floats state[UNITS] = {};
    const auto gate = [&](int of, int unit) {
        const Floats y = sums.start[of * UNITS + unit];
        return hard ? hard_sigmoid(y) : sigmoid(y);
    };
    for (int i = 0; i < x.n; i++) {
        const int p = backward ? x.n - 1 - i : i;
        gates.from = -p;
        convolve<Fp32, Fp32>(gates, x, before, sums, p, 1, false);
        for (int u = 0; u < UNITS; u++) {
            const Floats fresh = gate(0, u) * tanh(sums.start[2 * UNITS + u]);
            state[u] = gate(1, u) * state[u] + fresh;
            out.at(p)[u] = gate(3, u) * tanh(state[u]);
        }
    }
}

// A bidirectional LSTM and the convolution of one tap that makes UNITS channels of both its outputs.
struct Bidirectional {
    Conv<Fp32> forward, backward, merge;
    Bidirectional(Reader& reader, int inputs)
        : forward(Conv<Fp32>::read(reader, inputs + UNITS, 4 * UNITS, 1, 0)),
          backward(Conv<Fp32>::read(reader, inputs + UNITS, 4 * UNITS, 1, 0)),
          merge(Conv<Fp32>::read(reader, 2 * UNITS, UNITS, 1, 0)) {}

    void operator()(Track<Fp32> x, bool hard, Track<Fp32> out, Arena own) const {
        const Track<Fp32> one = own.track<Fp32>(x.n, UNITS), two = own.track<Fp32>(x.n, UNITS);
        lstm(forward, x, hard, false, one, own);
        lstm(backward, x, hard, true, two, own);
        convolve<Fp32, Fp32>(merge, one, two, out, 0, x.n, false);
    }
};

// Sum of w / (1 + e^2(q + k)), two at a time, of e^2q and e^2k. With w = -2 Wa that is the sum of Wa tanh(q + k), but
// for a constant that the softmax does not see.
INLINE Floats score(const Floats* q, const Floats* k, const float* w) {
    Floats sum{};
    for (int u = 0; u < SCORES; u += 2) {
        const Floats one = smaller(q[u] * k[u], all(FULL)), two = smaller(q[u + 1] * k[u + 1], all(FULL));
        const Floats top = one * w[u + 1] + (two * w[u] + (w[u] + w[u + 1]));
        sum = sum + top / ((one + 1.0f) * (two + 1.0f));
    }
    return sum;
}

// The same of q and k themselves, however large.
inline Floats steep_score(const Floats* q, const Floats* k, const float* w) {
    Floats sum{};
    for (int u = 0; u < SCORES; u++) sum = sum - tanh(q[u] + k[u]) * (0.5f * w[u]);
    return sum;
}

// Additive self attention, SeqSelfAttention of SeisBench; `eps` joins the sum of the softmax.
struct Attention {
    Conv<Fp32> query, key;
    const float* weights;  // -2 Wa
    explicit Attention(Reader& reader)
        : query(Conv<Fp32>::read(reader, UNITS, SCORES, 1, 0)),
          key(Conv<Fp32>::read(reader, UNITS, SCORES, 1, 0)),
          weights(reader.take<float>(SCORES)) {}

    // Of all positions or, if `reach` is not zero, of as many to either side.
    void operator()(Track<Fp32> x, float eps, int reach, Track<Fp32> out, Arena own) const {
        const Side q(query, x, own), k(key, x, own);
        const Ints steep = larger(q.most, k.most) > all(STEEP);  // every lane for itself
        bool any = false;
        for (int lane = 0; lane < LANES; lane++) any = any || steep[lane] != 0;
        for (int p = 0; p < x.n; p++) {
            Floats e[LONGEST], top = all(-INFINITY);
            for (int j = 0; j < x.n; j++) {
                e[j] = score(q.power.at(p), k.power.at(j), weights);
                if (any) e[j] = steep ? steep_score(q.plain.at(p), k.plain.at(j), weights) : e[j];
                top = larger(top, e[j]);
            }
            const int first = reach > 0 && p > reach ? p - reach : 0;
            const int end = reach > 0 && p + reach < x.n ? p + reach + 1 : x.n;
            mix(x, e, top, first, end, eps, out.at(p));
        }
    }

   private:
    struct Side {
        Track<Fp32> plain, power;  // x, e^2x
        Floats most{};             // largest magnitude of each lane
        Side(const Conv<Fp32>& conv, Track<Fp32> x, Arena& own)
            : plain(own.track<Fp32>(x.n, SCORES)), power(own.track<Fp32>(x.n, SCORES)) {
            convolve<Fp32, Fp32>(conv, x, plain, false);
            for (int i = 0; i < x.n * SCORES; i++) {
                const Floats y = plain.start[i];
                most = larger(most, larger(y, -y));
                power.start[i] = exp(y + y);
            }
        }
    };

    // Mean of positions [first, end) weighted with e^(e - top).
    static void mix(Track<Fp32> x, const Floats* e, Floats top, int first, int end, float eps, Floats* out) {
        Floats total{}, sum[UNITS] = {};
        for (int j = first; j < end; j++) {
            const Floats weight = exp(e[j] - top);
            total = total + weight;
            for (int c = 0; c < UNITS; c++) sum[c] = sum[c] + x.at(j)[c] * weight;
        }
        for (int c = 0; c < UNITS; c++) out[c] = sum[c] / (total + eps);
    }
};

// A gain and a shift for each channel.
struct Affine {
    const float *gain, *shift;
    Affine(Reader& reader, int channels) : gain(reader.take<float>(channels)), shift(reader.take<float>(channels)) {}
};

// x = layer norm, over the channels, of x + added.
inline void normalised_sum(const Affine& norm, Track<Fp32> x, Track<Fp32> added) {
    for (int p = 0; p < x.n; p++) {
        Floats *row = x.at(p), mean{}, spread{}, divisor{};
        for (int c = 0; c < UNITS; c++) row[c] = row[c] + added.at(p)[c], mean = mean + row[c];
        for (int c = 0; c < UNITS; c++) row[c] = row[c] - mean * (1.0f / UNITS), spread = spread + row[c] * row[c];
        for (int lane = 0; lane < LANES; lane++) divisor[lane] = std::sqrt(spread[lane] * (1.0f / UNITS) + 1e-14f);
        for (int c = 0; c < UNITS; c++) row[c] = row[c] / divisor * norm.gain[c] + norm.shift[c];
    }
}

struct Transformer {
    Attention attention;
    Affine first;
    Conv<Fp32> wide, narrow;
    Affine second;
    explicit Transformer(Reader& reader)
        : attention(reader),
          first(reader, UNITS),
          wide(Conv<Fp32>::read(reader, UNITS, HIDDEN, 1, 0)),
          narrow(Conv<Fp32>::read(reader, HIDDEN, UNITS, 1, 0)),
          second(reader, UNITS) {}

    void operator()(Track<Fp32> x, float eps, Arena own) const {
        const Track<Fp32> added = own.track<Fp32>(x.n, UNITS);
        attention(x, eps, 0, added, own);
        normalised_sum(first, x, added);
        const Track<Fp32> hidden = own.track<Fp32>(x.n, HIDDEN);
        convolve<Fp32, Fp32>(wide, x, hidden);
        convolve<Fp32, Fp32>(narrow, hidden, added, false);
        normalised_sum(second, x, added);
    }
};

}  // namespace sequence
