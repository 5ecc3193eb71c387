// What Python calls (build.py). Everything but the arguments lives in the headers.
#include "blend.h"
#include "lanes.h"
#include "phasenet.h"
#include "eqtransformer.h"

extern "C" {

int32_t native_lanes() { return lanes::LANES; }

int32_t native_has_bf16() {
#if defined(__AVX512BF16__)
    return 1;
#else
    return 0;
#endif
}

void phasenet_sizes(const phasenet::Settings* settings, int32_t bf16, int64_t* weights, int64_t* scratch) {
#if defined(__AVX512BF16__)
    if (bf16) return phasenet::sizes<lanes::Bf16>(*settings, weights, scratch);
#endif
    phasenet::sizes<lanes::Fp32>(*settings, weights, scratch);
}

// Samples (rows, n) -> out (count, chosen, length) for windows plan (count, 2) of (start, samples).
void phasenet_answers(const phasenet::Settings* settings, int32_t bf16, const char* weights, char* scratch,
                      const float* samples, int64_t n, const int64_t (*plan)[2], int64_t count, float* out) {
#if defined(__AVX512BF16__)
    if (bf16) return phasenet::answers<lanes::Bf16>(*settings, weights, scratch, samples, n, plan, count, out);
#endif
    phasenet::answers<lanes::Fp32>(*settings, weights, scratch, samples, n, plan, count, out);
}

void blend_answers(const blend::Settings* settings, const float* answers, const int64_t (*plan)[2], int64_t count,
                   float* out) {
    blend::blend(*settings, answers, plan, count, out);
}

}  // extern "C"
