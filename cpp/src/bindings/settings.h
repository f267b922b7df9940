// What a layer or a thread says of its products, from Python and back.
#pragma once
#include <optional>
#include <string>
#include <utility>

#include "../kernels/products.h"

namespace lstmx::bindings {

inline ProductSettings check_settings(const std::optional<std::string>& precision, const std::string& engine) {
  ProductSettings settings;
  if (precision) settings.precision = precision_of("precision", *precision);
  settings.wish = wish_of(engine);
  return settings;
}

// (the engine's name or fma, the parts of each number or 0)
inline std::pair<std::string, int> describe(const Products& products) {
  return {products.engine == nullptr ? "fma" : products.engine->name, products.parts};
}

}  // namespace lstmx::bindings
