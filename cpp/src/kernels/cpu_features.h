// What the processor and the operating system grant, as a mask; a target names the bits it needs in targets.inc.
#pragma once

namespace lstmx {

using Features = unsigned;

namespace feature {
constexpr Features avx2 = 1u << 0, fma = 1u << 1, avx512f = 1u << 2, avx512bw = 1u << 3, avx512dq = 1u << 4,
                   avx512vl = 1u << 5, avx512_bf16 = 1u << 6, amx_tile = 1u << 7, amx_bf16 = 1u << 8;
}

Features detect_features();

}  // namespace lstmx
