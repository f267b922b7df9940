// Targets, products and threads, as seen and set from Python.
#include "../kernels/dispatch.h"
#include "../kernels/products.h"
#include "../kernels/threads.h"
#include "arrays.h"
#include "settings.h"

namespace lstmx::bindings {
namespace {

std::vector<std::string> names(const std::vector<const TargetKernels*>& targets) {
  std::vector<std::string> found;
  for (const TargetKernels* target : targets) found.emplace_back(target->name);
  return found;
}

}  // namespace

void bind_runtime(py::module_& m) {
  m.def("compiled_targets", [] { return names(compiled_targets()); });
  m.def("supported_targets", [] { return names(supported_targets()); });
  m.def("active_target", [] { return std::string(active_target().name); });
  m.def("set_active_target", &set_active_target, py::arg("name"));
  m.def("get_float32_precision", [] { return std::string(precision_name(default_precision())); });
  m.def("set_float32_precision", &set_default_precision, py::arg("precision"));
  m.def("get_thread_products", [] {
    const ProductSettings settings = thread_settings();
    std::optional<std::string> precision;
    if (settings.precision) precision = precision_name(*settings.precision);
    return std::pair(precision, std::string(wish_name(settings.wish)));
  });
  m.def(
      "set_thread_products",
      [](const std::optional<std::string>& precision, const std::string& engine) {
        set_thread_settings(check_settings(precision, engine));
      },
      py::arg("precision"), py::arg("engine"));
  m.def("has_openmp", &has_openmp);
  m.def("get_num_threads", &default_threads);
  m.def("set_num_threads", &set_default_threads, py::arg("n"));
}

}  // namespace lstmx::bindings
