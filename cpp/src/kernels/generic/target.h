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
#include "backward.h"
#include "forward.h"
//
#include "staged_forward.h"

namespace {

template <class S, class Cell, bool staged>
struct ForwardOf {
  using Type = Forward<S, Cell>;
};
template <class S, class Cell>
struct ForwardOf<S, Cell, true> {
  using Type = StagedForward<S, Cell>;
};

template <class S, template <class> class Cell>
constexpr lstmx::CellKernels<RealOf<S>> cell_kernels() {
  using F = typename ForwardOf<S, Cell<S>, Layout<S, Cell<S>>::staged>::Type;
  using B = Backward<S, Cell<S>>;
  return {Cell<S>::gate_rows, F::pack_forward_size, F::pack_backward_size, F::tape_size, F::work_size,
          B::work_size,       F::pack_forward,      F::pack_backward,      F::run,       B::run};
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
