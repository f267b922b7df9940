// The end of every target file: the generic code on the file's Choices, and the table that dispatch picks from. All but
// the table has internal linkage, and nothing here includes a header with inline functions that the linker could merge:
// code built for a newer processor must not leak into functions that every processor runs.
#pragma once

#include "../kernels.h"
// order matters from here on: each file uses those before it
#include "activations.h"
#include "gemm.h"
#include "parallel.h"
// the cells
#include "../cells/lstm.h"
// the drivers
#include "linear.h"
#include "optimizer.h"
//
#include "layout.h"
//
#include "backward.h"
#include "forward.h"

namespace {

template <class S, template <class> class Cell>
constexpr lstmx::CellKernels<typename S::Real> cell_kernels() {
  using F = Forward<S, Cell<S>>;
  using B = Backward<S, Cell<S>>;
  return {F::pack_forward_size, F::pack_backward_size, F::tape_size, F::work_size, B::work_size,
          F::pack_forward,      F::pack_backward,      F::run,       B::run};
}

template <class S>
constexpr lstmx::LinearKernels<typename S::Real> linear_kernels() {
  using L = Linear<S>;
  return {L::pack_forward_size, L::pack_backward_size, L::pack_forward, L::pack_backward, L::forward, L::backward};
}

template <class S>
constexpr lstmx::RealKernels<typename S::Real> kernels() {
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
    kernels<Choices<float>>(),
    kernels<Choices<double>>(),
    LSTMX_STRING(LSTMX_TARGET_NAME),
};

}  // namespace lstmx
