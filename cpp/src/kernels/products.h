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

// A layer's: by the cost rule, never an engine, an engine wherever there is one.
enum class Wish { choose, fma, tiles };

// the thread's or the process's; throws std::invalid_argument on a wrong LSTMX_PRECISION
Precision default_precision();
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

// What is multiplied: `rows` rows (of a step, where there are steps) of the depths together by `columns` columns.
struct ProductShape {
  Index rows;
  std::initializer_list<Index> depths;
  Index columns;
  bool of_cell;  // whether a cell is applied to the result
};

// The cost rule: whether the engine is used, by an estimate of both times that must differ by more than the factor
// `worth`. It looks at nothing that depends on how a sequence is cut. In multiply-adds of the units:
//   products   rows * columns * depth; by the engine of whole tiles, by its gain
//   cell       of each number 24, and 8 more where the products are not in the same tile
//   splitting  20 for each part of a number of the rows (once for its rows, and in training once for its columns)
//   memory     2.8 for each byte by which weights in parts are larger, where they are beyond `l2_size` (30 GB/s)
// The first comes from Engine::gain, the others are of this library's kernels, measured by benchmarks/engines.py.
constexpr double worth = 1.1;
constexpr double l2_size = 1024.0 * 1024.0;
Products choose_products(const Engine* engine, const ProductSettings& settings, const ProductShape& shape);

}  // namespace lstmx
