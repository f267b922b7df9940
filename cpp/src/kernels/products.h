// How exact products of float32 have to be, and what makes them: multiply-add units, or the active target's engine.
// LSTMX_PRECISION in the environment gives the default precision at the first use, set_default_precision() later; a
// thread may have its own for a while, and what a layer says of itself stands before both.
#pragma once
#include <initializer_list>
#include <optional>
#include <string>

#include "kernels.h"

namespace lstmx {

// The words are PyTorch's. Without an engine that gains from less, all compute `highest`.
enum class Precision { medium = 1, high = 2, highest = 3 };  // parts of bf16 that a number is given as

enum class Wish {
  choose,
  fma,
  tiles
};  // the layer's: by the cost rule, never an engine, an engine wherever there is one

Precision
default_precision();  // the thread's or the process's; throws std::invalid_argument on a wrong LSTMX_PRECISION
void set_default_precision(const std::string& name);
Precision precision_of(const char* what, const std::string& name);  // throws std::invalid_argument
Wish wish_of(const std::string& name);                              // auto, fma or tiles; throws std::invalid_argument
const char* precision_name(Precision);
const char* wish_name(Wish);

// What a layer, or a thread, says; none and `choose` leave it to the next: the thread, then the process.
struct ProductSettings {
  std::optional<Precision> precision;
  Wish wish = Wish::choose;
};

ProductSettings thread_settings();  // of the calling thread; nothing at first
void set_thread_settings(const ProductSettings&);

struct Products {
  const Engine* engine;  // null: multiply-add units
  int parts;             // 0 without an engine
};

// The cost rule, for products of `rows` rows (of a step, where there are steps) of `depths` k by `columns` columns. It
// looks at nothing that depends on how a sequence is cut: the engine is used where its gain (Engine::gain) times the
// valid share of its tiles is more than `worth`.
constexpr double worth = 1.03;
Products choose_products(const Engine* engine, const ProductSettings& settings, Index rows,
                         std::initializer_list<Index> depths, Index columns);

}  // namespace lstmx
