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
  CHECK(best(~0u) == "avx512");
#endif
  for (const TargetKernels* target : supported_targets()) {
    set_active_target(target->name);
    CHECK(&active_target() == target);
  }
  CHECK(throws<std::invalid_argument>([] { set_active_target("sse9"); }, "expected one of portable"));
  CHECK(throws<std::invalid_argument>([] { set_active_target(""); }, "got ''"));
  return 0;
}
