#include "dispatch.h"

#include <atomic>
#include <cstdlib>
#include <stdexcept>

namespace lstmx {
namespace {

struct Entry {
  TargetKernels kernels;
  Features needs;
};

constexpr Entry entries[] = {
#define LSTMX_TARGET(name, kernels, engine, features) \
  {{#name, &float32_##kernels, &float64_##kernels, engine}, features},
#define LSTMX_ENGINE(name)
#include "targets.inc"
#undef LSTMX_TARGET
#undef LSTMX_ENGINE
};

std::atomic<const TargetKernels*> active{nullptr};

std::string names_of(const std::vector<const TargetKernels*>& targets) {
  std::string text;
  for (const TargetKernels* target : targets) text += (text.empty() ? "" : ", ") + std::string(target->name);
  return text;
}

const TargetKernels* find_supported(const std::string& what, const std::string& name) {
  for (const TargetKernels* target : supported_targets()) {
    if (name == target->name) return target;
  }
  for (const TargetKernels* target : compiled_targets()) {
    if (name == target->name)
      throw std::invalid_argument(what + ": this machine cannot run '" + name + "'; it runs " +
                                  names_of(supported_targets()));
  }
  throw std::invalid_argument(what + ": expected one of " + names_of(compiled_targets()) + ", got '" + name + "'");
}

}  // namespace

std::vector<const TargetKernels*> compiled_targets() { return supported_targets(~Features{0}); }

std::vector<const TargetKernels*> supported_targets(Features granted) {
  std::vector<const TargetKernels*> found;
  for (const Entry& entry : entries) {
    if ((entry.needs & ~granted) == 0) found.push_back(&entry.kernels);
  }
  return found;
}

std::vector<const TargetKernels*> supported_targets() {
  static const Features granted = detect_features();
  return supported_targets(granted);
}

const TargetKernels& active_target() {
  const TargetKernels* target = active.load(std::memory_order_acquire);
  if (target == nullptr) {
    const char* wish = std::getenv("LSTMX_TARGET");
    target = wish != nullptr && *wish != '\0' ? find_supported("LSTMX_TARGET", wish) : supported_targets().back();
    active.store(target, std::memory_order_release);
  }
  return *target;
}

void set_active_target(const std::string& name) {
  active.store(find_supported("target", name), std::memory_order_release);
}

}  // namespace lstmx
