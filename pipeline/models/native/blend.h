// Overlapping answers of windows into one trace: pipeline.maths.windows.Blender, to the bit.
#pragma once

#include <cmath>
#include <cstdint>
#include <vector>

namespace blend {

constexpr int64_t TILE = 8192;  // samples whose sums stay in the cache

struct Settings {
    int64_t rows, length, n;        // answers are (rows, length) a window, the trace is (rows, n)
    int64_t before, after, by_max;  // samples at a window's ends that do not count; maximum instead of mean
};

inline void add_mean(const float* values, int64_t count, float* sum, float* seen) {
    for (int64_t i = 0; i < count; i++) {
        const bool known = values[i] == values[i];
        sum[i] = sum[i] + (known ? values[i] : 0.0f);
        seen[i] = seen[i] + (known ? 1.0f : 0.0f);
    }
}

inline void add_max(const float* values, int64_t count, float* sum, float* seen) {
    for (int64_t i = 0; i < count; i++) {
        const bool known = values[i] == values[i], taken = known & ((seen[i] == 0) | (values[i] > sum[i]));
        sum[i] = taken ? values[i] : sum[i];
        seen[i] = seen[i] + (known ? 1.0f : 0.0f);
    }
}

// Windows [begin, end) of ascending starts. As tiles go on, those before ``alive`` have ended.
struct Ascending {
    int64_t begin, end, alive;
};

inline std::vector<Ascending> ascending(const int64_t (*plan)[2], int64_t count) {
    std::vector<Ascending> found;
    for (int64_t w = 0, begin = 0; w < count; w++)
        if (w + 1 == count || plan[w + 1][0] < plan[w][0]) found.push_back({begin, w + 1, begin}), begin = w + 1;
    return found;
}

// Samples [from, to) of one row of the trace, out of all windows that reach into it, in their order.
inline void tile(const Settings& set, const float* answers, const int64_t (*plan)[2], std::vector<Ascending>& windows,
                 int64_t row, int64_t from, int64_t to, float* out) {
    float sum[TILE] = {}, seen[TILE] = {};
    const auto add = set.by_max ? add_max : add_mean;
    for (auto& part : windows) {
        while (part.alive < part.end && plan[part.alive][0] + set.length <= from) part.alive++;
        for (int64_t w = part.alive; w < part.end && plan[w][0] < to; w++) {
            const int64_t start = plan[w][0], visible = set.length - set.after;
            const int64_t end = start + (plan[w][1] < visible ? plan[w][1] : visible);
            const int64_t first = start + set.before > from ? start + set.before : from, last = end < to ? end : to;
            if (first >= last) continue;
            const float* values = answers + (w * set.rows + row) * set.length + (first - start);
            add(values, last - first, sum + (first - from), seen + (first - from));
        }
    }
    for (int64_t i = 0; i < to - from; i++) {
        const float blended = set.by_max ? sum[i] : sum[i] / seen[i];
        out[i] = seen[i] > 0 ? blended : NAN;
    }
}

// answers (count, rows, length) of windows plan (count, 2), each (start, samples), into out (rows, n).
inline void blend(const Settings& set, const float* answers, const int64_t (*plan)[2], int64_t count, float* out) {
    for (int64_t row = 0; row < set.rows; row++) {
        auto windows = ascending(plan, count);
        for (int64_t from = 0; from < set.n; from += TILE) {
            const int64_t to = from + TILE < set.n ? from + TILE : set.n;
            tile(set, answers, plan, windows, row, from, to, out + row * set.n + from);
        }
    }
}

}  // namespace blend
