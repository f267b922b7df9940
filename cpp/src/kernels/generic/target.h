// The end of every target file: the generic code on the file's Choices, and the table that dispatch picks from. All but
// the table has internal linkage, and nothing here includes a header with inline functions that the linker could merge:
// code built for a newer processor must not leak into functions that every processor runs.
#pragma once

#include "../kernels.h"

namespace {
using lstmx::Activation;
using lstmx::ConstView3;
using lstmx::Function;
using lstmx::Index;
using lstmx::RecurrentBackward;
using lstmx::RecurrentForward;
using lstmx::RecurrentGradients;
using lstmx::RecurrentSizes;
using lstmx::RecurrentWeights;
using lstmx::Schedule;
using lstmx::StagedInputs;
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
  static Index backward_work_size(const RecurrentSizes& n) { return Backward<S>::work_size(traits, n); }
  static void pack_forward(const RecurrentWeights<Real>& w, Index I, Index H, Index P, Real* packed) {
    L::pack_forward(traits, w, I, H, P, packed);
  }
  static void pack_backward(const RecurrentWeights<Real>& w, Index I, Index H, Index P, Real* packed) {
    L::pack_backward(traits, w, I, H, P, packed);
  }
  static void forward(const RecurrentForward<Real>& a) {
    if constexpr (Cell::staged || !S::fuses) {
      using Staged = StagedCell<S, Cell>;
      if constexpr (Cell::normalizes) {
        StagedForward<S>::run(a, traits, &Staged::apply, &Staged::apply_output);
      } else {
        StagedForward<S>::run(a, traits, &Staged::apply, nullptr);
      }
    } else {
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
  return {Cell<S>::gate_rows,   E::pack_forward_size,       E::pack_backward_size,
          Layout<S>::tape_size, ForwardFrame<S>::work_size, E::backward_work_size,
          E::pack_forward,      E::pack_backward,           E::forward,
          E::backward};
}

template <class S>
constexpr lstmx::LinearKernels<RealOf<S>> linear_kernels() {
  using L = Linear<S>;
  return {L::pack_forward_size, L::pack_backward_size, L::pack_forward, L::pack_backward, L::forward, L::backward};
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
#define LSTMX_TABLE(name) LSTMX_PASTE(target_, name)
#define LSTMX_STRING_OF(name) #name
#define LSTMX_STRING(name) LSTMX_STRING_OF(name)

namespace lstmx {

constinit const TargetKernels LSTMX_TABLE(LSTMX_TARGET_NAME) = {
    LSTMX_STRING(LSTMX_TARGET_NAME),
    kernels<Choices>(),
    kernels<Choices64>(),
};

}  // namespace lstmx
