// Selection with made-up feature masks, and forcing a target by name.
#include <stdexcept>
#include <string>

#include "../src/kernels/dispatch.h"
#include "check.h"

using namespace lstmx;

namespace {

std::string best(Features granted) { return supported_targets(granted).back()->name; }

}  // namespace

int main() {
  CHECK(compiled_targets().front()->name == std::string("portable"));
  CHECK(best(0) == "portable");
#if LSTMX_X86
  CHECK(best(feature::avx2) == "portable");  // AVX2 without FMA is not enough
  CHECK(best(feature::avx2 | feature::fma) == "avx2");
  CHECK(best(feature::avx2 | feature::fma | feature::avx512f) == "avx2");
  CHECK(best(~0u & ~feature::avx512vl) == "avx2");
  constexpr Features avx512 = feature::avx512f | feature::avx512bw | feature::avx512dq | feature::avx512vl;
  CHECK(best(avx512) == "avx512");  // and never the emulation
  CHECK(best(avx512 | feature::amx_tile) == "avx512");
  CHECK(best(avx512 | feature::avx512_bf16) == "avx512_bf16");
  CHECK(best(feature::avx2 | feature::fma | feature::amx_tile | feature::amx_bf16) == "avx2");
  CHECK(best(~0u) == "amx");
  CHECK(supported_targets(~0u).back()->engine == &engine_amx);
  for (const TargetKernels* target : supported_targets(~0u)) {
    if (target->name == std::string("avx512")) CHECK(target->engine == nullptr);
  }
#endif
  for (const TargetKernels* target : supported_targets()) {
    set_active_target(target->name);
    CHECK(&active_target() == target);
  }
  CHECK(throws<std::invalid_argument>([] { set_active_target("sse9"); }, "expected one of portable"));
  CHECK(throws<std::invalid_argument>([] { set_active_target(""); }, "got ''"));
  return 0;
}
