// Which targets there are, which this machine can run, and which one is active. LSTMX_TARGET in the environment chooses
// at the first use; set_active_target() later. An unknown or unsupported name is an error that names the valid ones.
#pragma once
#include <string>
#include <vector>

#include "cpu_features.h"
#include "kernels.h"

namespace lstmx {

std::vector<const TargetKernels*> compiled_targets();                   // slowest first
std::vector<const TargetKernels*> supported_targets(Features granted);  // those that need nothing beyond `granted`
std::vector<const TargetKernels*> supported_targets();                  // on this machine

const TargetKernels& active_target();             // throws std::invalid_argument on a wrong LSTMX_TARGET
void set_active_target(const std::string& name);  // throws std::invalid_argument

}  // namespace lstmx
