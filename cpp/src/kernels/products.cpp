#include "products.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstddef>
#include <cstdlib>
#include <stdexcept>

namespace lstmx {
namespace {

template <class Value>
struct Named {
  const char* name;
  Value value;
};
constexpr Named<Precision> precisions[] = {
    {"highest", Precision::highest}, {"high", Precision::high}, {"medium", Precision::medium}};
constexpr Named<Wish> wishes[] = {{"auto", Wish::choose}, {"fma", Wish::fma}, {"tiles", Wish::tiles}};

template <class Value, std::size_t n>
Value find(const Named<Value> (&all)[n], const char* what, const std::string& name) {
  std::string known;
  for (const Named<Value>& one : all) {
    if (name == one.name) return one.value;
    known += (known.empty() ? "" : ", ") + std::string(one.name);
  }
  throw std::invalid_argument(std::string(what) + ": expected one of " + known + ", got '" + name + "'");
}

template <class Value, std::size_t n>
const char* name_of(const Named<Value> (&all)[n], Value value) {
  for (const Named<Value>& one : all) {
    if (value == one.value) return one.name;
  }
  return "";
}

std::atomic<int> chosen{0};  // a Precision, of the process; 0: not yet
thread_local ProductSettings of_thread;

Index rounded(Index n, Index to) { return (n + to - 1) / to * to; }

// of weights that are more than the others, and more than what stays near
double memory_time(double bytes, double others) {
  return bytes > l2_size && bytes > others ? 2.8 * (bytes - others) : 0;
}

}  // namespace

Precision precision_of(const char* what, const std::string& name) { return find(precisions, what, name); }
Wish wish_of(const std::string& name) { return find(wishes, "engine", name); }
const char* precision_name(Precision precision) { return name_of(precisions, precision); }
const char* wish_name(Wish wish) { return name_of(wishes, wish); }

ProductSettings thread_settings() { return of_thread; }
void set_thread_settings(const ProductSettings& settings) { of_thread = settings; }

Precision default_precision() {
  if (of_thread.precision) return *of_thread.precision;
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

Products choose_products(const Engine* engine, const ProductSettings& settings, const ProductShape& shape) {
  const Products units{nullptr, 0};
  if (engine == nullptr) return units;
  const int parts = static_cast<int>(settings.precision ? *settings.precision : default_precision());
  const Products tiles{engine, parts};
  const Wish wish = settings.wish != Wish::choose ? settings.wish : of_thread.wish;
  if (wish == Wish::fma || engine->multiply[parts - 1] == nullptr) return units;
  if (wish == Wish::tiles || std::isinf(engine->gain[parts - 1])) return tiles;
  double depth = 0, whole_depth = 0;
  for (const Index each : shape.depths) {
    depth += double(each);
    whole_depth += double(rounded(each, 32));
  }
  const double rows = double(shape.rows), columns = double(shape.columns);
  const double whole_rows = double(rounded(shape.rows, engine->rows));
  const double whole_columns = double(rounded(shape.columns, 16));
  const double cell = shape.of_cell ? 24 : 0;
  const double by_units = rows * columns * (depth + cell);
  const double by_engine = whole_rows * whole_columns * whole_depth / engine->gain[parts - 1] +
                           rows * whole_columns * (cell + 8) + rows * whole_depth * 20 * parts +
                           memory_time(2 * parts * whole_depth * whole_columns, 4 * depth * columns);
  return by_units > worth * by_engine ? tiles : units;
}

}  // namespace lstmx
