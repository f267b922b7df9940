#include "products.h"

#include <atomic>
#include <cstdlib>
#include <stdexcept>

namespace lstmx {
namespace {

struct Named {
  const char* name;
  Precision precision;
};
constexpr Named names[] = {{"highest", Precision::highest}, {"high", Precision::high}, {"medium", Precision::medium}};

std::atomic<int> chosen{0};  // a Precision; 0: not yet

Index rounded(Index n, Index to) { return (n + to - 1) / to * to; }

}  // namespace

Precision precision_of(const char* what, const std::string& name) {
  for (const Named& known : names) {
    if (name == known.name) return known.precision;
  }
  throw std::invalid_argument(std::string(what) + ": expected one of highest, high, medium, got '" + name + "'");
}

Wish wish_of(const std::string& name) {
  if (name == "auto") return Wish::choose;
  if (name == "fma") return Wish::fma;
  if (name == "tiles") return Wish::tiles;
  throw std::invalid_argument("engine: expected one of auto, fma, tiles, got '" + name + "'");
}

const char* precision_name(Precision precision) {
  for (const Named& known : names) {
    if (precision == known.precision) return known.name;
  }
  return "";
}

Precision default_precision() {
  int precision = chosen.load(std::memory_order_relaxed);
  if (precision == 0) {
    const char* wish = std::getenv("LSTMX_PRECISION");
    precision =
        static_cast<int>(wish != nullptr && *wish != '\0' ? precision_of("LSTMX_PRECISION", wish) : Precision::highest);
    chosen.store(precision, std::memory_order_relaxed);
  }
  return static_cast<Precision>(precision);
}

void set_default_precision(const std::string& name) {
  chosen.store(static_cast<int>(precision_of("precision", name)), std::memory_order_relaxed);
}

Products choose_products(const Engine* engine, const ProductSettings& settings, Index rows,
                         std::initializer_list<Index> depths, Index columns) {
  const int parts = static_cast<int>(settings.precision.value_or(default_precision()));
  const Products units{nullptr, 0}, tiles{engine, parts};
  if (engine == nullptr || settings.wish == Wish::fma || engine->multiply[parts - 1] == nullptr) return units;
  if (settings.wish == Wish::tiles) return tiles;
  Index valid = 0, whole = 0;
  for (const Index depth : depths) {
    valid += depth;
    whole += rounded(depth, 32);
  }
  const double used = double(rows) * double(valid) * double(columns) /
                      (double(rounded(rows, engine->rows)) * double(whole) * double(rounded(columns, 16)));
  return engine->gain[parts - 1] * used > worth ? tiles : units;
}

}  // namespace lstmx
