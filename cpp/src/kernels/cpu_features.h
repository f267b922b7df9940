// What the processor and the operating system grant, as a mask; a target names the bits it needs in targets.inc.
#pragma once

namespace lstmx {

using Features = unsigned;

namespace feature {
constexpr Features avx2 = 1u << 0, fma = 1u << 1, avx512f = 1u << 2, avx512bw = 1u << 3, avx512dq = 1u << 4,
                   avx512vl = 1u << 5;
}

Features detect_features();

}  // namespace lstmx
