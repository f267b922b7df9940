// The end of every target file: the generic code on the file's Choices, and the table that dispatch picks from. All but
// the table has internal linkage, and nothing here includes a header with inline functions that the linker could merge:
// code built for a newer processor must not leak into functions that every processor runs.
#pragma once

#include "../kernels.h"

namespace {
using lstmx::Activation;
using lstmx::Bf16;
using lstmx::ConstView3;
using lstmx::Engine;
using lstmx::Function;
using lstmx::Index;
using lstmx::RecurrentBackward;
using lstmx::RecurrentForward;
using lstmx::RecurrentGradients;
using lstmx::RecurrentSizes;
using lstmx::RecurrentWeights;
using lstmx::Schedule;
using lstmx::StagedInputs;
using lstmx::TileProduct;
using lstmx::VariantOptions;
using lstmx::View3;
}  // namespace

// order matters from here on: each file uses those before it
#include "activations.h"
//
#include "functions.h"
//
#include "gemm.h"
#include "parallel.h"
#include "piece.h"
// the cells
#include "../cells/gru.h"
#include "../cells/lstm.h"
#include "../cells/rnn.h"
#include "../cells/variant.h"
// the drivers
#include "tiles.h"
//
#include "tile_linear.h"
//
#include "linear.h"
#include "optimizer.h"
//
#include "layout.h"
//
#include "normalize.h"
//
#include "chunk_gradients.h"
#include "forward.h"
//
#include "tile_backward.h"
#include "tile_forward.h"
//
#include "backward.h"
#include "cell_backward.h"
//
#include "staged_forward.h"

namespace {

// The drivers with one cell.
template <class S, class Cell>
struct CellEntries {
  using Real = typename S::Real;
  using L = Layout<S>;
  static constexpr CellTraits<S> traits = CellTraits<S>::template of<Cell>();

  static Index pack_forward_size(Index I, Index H, Index P) { return L::pack_forward_size(traits, I, H, P); }
  static Index pack_backward_size(Index I, Index H, Index P) { return L::pack_backward_size(traits, I, H, P); }
  static Index backward_work_size(const RecurrentSizes& n, int threads) {
    return Backward<S>::work_size(traits, n, threads);
  }
  static void pack_forward(const RecurrentWeights<Real>& w, Index I, Index H, Index P, Real* packed) {
    L::pack_forward(traits, w, I, H, P, packed);
  }
  static void pack_backward(const RecurrentWeights<Real>& w, Index I, Index H, Index P, Real* packed) {
    L::pack_backward(traits, w, I, H, P, packed);
  }
  static void forward(const RecurrentForward<Real>& a) {
    using Staged = StagedCell<S, Cell>;
    if constexpr (Cell::normalizes) {
      StagedForward<S>::run(a, traits, &Staged::apply, &Staged::apply_output);
    } else if constexpr (Cell::staged || !S::fuses) {
      StagedForward<S>::run(a, traits, &Staged::apply, nullptr);
    } else {
      if constexpr (makes_parts<S>) {
        if (a.engine) return StagedForward<S>::run(a, traits, &Staged::apply, nullptr);
      }
      FusedForward<S, Cell>::run(a, traits);
    }
  }
  static void backward(const RecurrentBackward<Real>& a) {
    using Back = CellBackward<S, Cell>;
    if constexpr (Cell::normalizes) {
      Backward<S>::run(a, traits, {&Back::run, &Back::seen_back});
    } else {
      Backward<S>::run(a, traits, {&Back::run, nullptr});
    }
  }
};

template <class S, template <class> class Cell>
constexpr lstmx::CellKernels<RealOf<S>> cell_kernels() {
  using E = CellEntries<S, Cell<S>>;
  lstmx::SplitKernels<RealOf<S>> split{};
  if constexpr (makes_parts<S>) {
    split = {TileForward<S>::split_size, TileBackward<S>::split_size, TileForward<S>::split, TileBackward<S>::split};
  }
  return {Cell<S>::gate_rows,
          E::pack_forward_size,
          E::pack_backward_size,
          Layout<S>::tape_size,
          ForwardFrame<S>::work_size,
          E::backward_work_size,
          E::pack_forward,
          E::pack_backward,
          split,
          E::forward,
          E::backward};
}

template <class S>
constexpr lstmx::LinearKernels<RealOf<S>> linear_kernels() {
  using L = Linear<S>;
  lstmx::SplitKernels<RealOf<S>> split{};
  if constexpr (makes_parts<S>) {
    using T = TileLinear<S>;
    split = {T::forward_split_size, T::backward_split_size, T::split_forward, T::split_backward};
  }
  return {L::pack_forward_size, L::pack_backward_size,
          L::pack_forward,      L::pack_backward,
          L::work_size,         L::forward,
          L::backward,          split};
}

template <class S>
constexpr lstmx::Kernels<RealOf<S>> kernels() {
  return {
      {
#define LSTMX_CELL(name, type) cell_kernels<S, type>(),
#include "../cells.inc"
#undef LSTMX_CELL
      },
      linear_kernels<S>(),
      {Optimizer<S>::sgd, Optimizer<S>::adam},
  };
}

}  // namespace

#define LSTMX_PASTE(a, b) a##b
#define LSTMX_TABLE(prefix, name) LSTMX_PASTE(prefix, name)

namespace lstmx {

constinit const Kernels<float> LSTMX_TABLE(float32_, LSTMX_TARGET_NAME) = kernels<Choices>();
constinit const Kernels<double> LSTMX_TABLE(float64_, LSTMX_TARGET_NAME) = kernels<Choices64>();

}  // namespace lstmx
