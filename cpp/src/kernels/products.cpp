#include "products.h"

#include <atomic>
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

Products choose_products(const Engine* engine, const ProductSettings& settings, Index rows,
                         std::initializer_list<Index> depths, Index columns) {
  const int parts = static_cast<int>(settings.precision.value_or(default_precision()));
  const Wish wish = settings.wish != Wish::choose ? settings.wish : of_thread.wish;
  const Products units{nullptr, 0}, tiles{engine, parts};
  if (engine == nullptr || wish == Wish::fma || engine->multiply[parts - 1] == nullptr) return units;
  if (wish == Wish::tiles) return tiles;
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
