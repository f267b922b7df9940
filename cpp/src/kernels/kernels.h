// The contract between the kernels and everything above them: the legend, the argument structs and the table that a
// target fills in. It holds plain data only and is compiled into every target, so it includes nothing but <stddef.h>
// and defines no function.
//
// Legend
//   T time steps, B batch rows, I input size, H hidden size, G gates of a cell (4: i f g o), N rows of a matrix.
//   Real is the scalar, float or double; each target has the same kernels for both. Sizes and strides are in scalars.
//   W is the number of scalars in a vector of the target; PW = G * W, the gates of W hidden units.
//   All matrices are row-major. A View3 is [T,B,K] with free strides between steps and between rows, possibly negative;
//   its last axis is contiguous.
// Pointer rules
//   Inputs are never written. Outputs may not overlap inputs or each other. "or null" marks what may be absent.
//   What lies beyond a row's length is never read.
//   The caller allocates everything; sizes come from the table's *_size functions. Buffers whose size comes from there
//   are 64-byte aligned; nothing else needs any alignment.
//   Kernels allocate nothing, throw nothing and keep no state.
// Numbers
//   Each output row is one chain of fused multiply-adds in a fixed order (bias, then x, then h, k ascending), so that
//   its bits depend neither on B nor on its position, on the thread count or on how a sequence is cut into calls. Sums
//   over rows (weight and bias gradients) run in blocks of rows in an order that no thread count changes. Denormal
//   numbers are read and written as zero; the caller's floating-point state comes back as it was.
#pragma once
#include <stddef.h>

namespace lstmx {

using Index = ptrdiff_t;

template <class Real>
struct ConstView3 {
  const Real* data;
  Index step, row;  // scalars between t and t+1, between b and b+1
};

template <class Real>
struct View3 {
  Real* data;
  Index step, row;
};

// The parameters of one layer and direction, PyTorch's shapes and gate order.
template <class Real>
struct RecurrentWeights {
  const Real* weight_ih;  // [G*H, I]
  const Real* weight_hh;  // [G*H, H]
  const Real* bias_ih;    // [G*H] or null
  const Real* bias_hh;    // [G*H] or null
};

template <class Real>
struct RecurrentGradients {
  Real* weight_ih;  // [G*H, I], accumulated
  Real* weight_hh;  // [G*H, H], accumulated
  Real* bias_ih;    // [G*H] or null, accumulated
  Real* bias_hh;    // [G*H] or null, accumulated
};

struct RecurrentSizes {
  Index T, B, I, H;
  Index rows;  // of all steps together: T * B, or the sum of the lengths
};

// Which rows are computed at which step. Positions are rows in descending order of length, so that those alive at a
// step are the first ones. A row of the tape is numbered first[t] + position.
struct Schedule {
  const Index* order;           // [B] position -> row of x, y and the states
  const Index* length;          // [B] by position, descending, at most T
  const Index* alive;           // [T+1] positions alive at step t; 0 at T
  const Index* first;           // [T+1] the sum of alive before step t
  const unsigned char* resets;  // [T,B] or null: where not 0, h and c are zero before the step
  Index reset_step, reset_row;  // its strides, by row (not position)
};

template <class Real>
struct RecurrentForward {
  RecurrentSizes size;
  Schedule schedule;
  const Real* packed;  // from pack_forward
  ConstView3<Real> x;  // [T,B,I]
  const Real* h_0;     // [B,H] or null: zeros
  const Real* c_0;     // [B,H] or null: zeros
  View3<Real> y;       // [T,B,H]; zero beyond a row's length
  Real* h_n;           // [B,H]
  Real* c_n;           // [B,H]
  Real* tape;          // tape_size scalars, written for backward; null for inference
  Real* work;          // forward_work_size scalars
  int threads;
};

template <class Real>
struct RecurrentBackward {
  RecurrentSizes size;
  Schedule schedule;    // as given to forward
  const Real* packed;   // from pack_backward, of the weights that forward used
  ConstView3<Real> x;   // as given to forward
  ConstView3<Real> y;   // as forward wrote it
  const Real* h_0;      // as given to forward
  ConstView3<Real> dy;  // [T,B,H]; data null: zeros
  const Real* dh_n;     // [B,H] or null: zeros
  const Real* dc_n;     // [B,H] or null: zeros
  View3<Real> dx;       // [T,B,I]; data null: not wanted; zero beyond a row's length
  Real* dh_0;           // [B,H] or null: not wanted
  Real* dc_0;           // [B,H] or null: not wanted
  RecurrentGradients<Real> gradients;
  Real* tape;  // as forward filled it; the gates become their gradients
  Real* work;  // backward_work_size scalars
  int threads;
};

template <class Real>
struct CellKernels {
  Index (*pack_forward_size)(Index I, Index H);
  Index (*pack_backward_size)(Index I, Index H);
  Index (*tape_size)(const RecurrentSizes&);
  Index (*forward_work_size)(const RecurrentSizes&, int threads);
  Index (*backward_work_size)(const RecurrentSizes&);
  void (*pack_forward)(const RecurrentWeights<Real>&, Index I, Index H, Real* packed);
  void (*pack_backward)(const RecurrentWeights<Real>&, Index I, Index H, Real* packed);
  void (*forward)(const RecurrentForward<Real>&);
  void (*backward)(const RecurrentBackward<Real>&);
};

template <class Real>
struct LinearForward {
  Index N, in, out;
  const Real* packed;  // from pack_forward
  const Real* x;       // [N,in], rows x_row scalars apart
  Index x_row;
  Real* y;  // [N,out], rows y_row scalars apart
  Index y_row;
  int threads;
};

template <class Real>
struct LinearBackward {
  Index N, in, out;
  const Real* packed;  // from pack_backward; unused without dx
  const Real* x;       // [N,in]
  Index x_row;
  const Real* dy;  // [N,out]
  Index dy_row;
  Real* dx;  // [N,in] or null: not wanted
  Index dx_row;
  Real* d_weight;  // [out,in], accumulated
  Real* d_bias;    // [out] or null, accumulated
  int threads;
};

template <class Real>
struct LinearKernels {
  Index (*pack_forward_size)(Index in, Index out);
  Index (*pack_backward_size)(Index in, Index out);
  void (*pack_forward)(const Real* weight, const Real* bias_or_null, Index in, Index out, Real* packed);
  void (*pack_backward)(const Real* weight, Index in, Index out, Real* packed);
  void (*forward)(const LinearForward<Real>&);
  void (*backward)(const LinearBackward<Real>&);
};

// One step of an optimiser over n contiguous parameters; the formulas are PyTorch's.
template <class Real>
struct SgdStep {
  Real* params;
  const Real* grads;
  Real* velocity;  // or null without momentum
  Index n;
  Real lr, momentum, decay, grad_scale;
  bool nesterov;
};

template <class Real>
struct AdamStep {
  Real* params;
  const Real* grads;
  Real* m;
  Real* v;
  Index n;
  Real beta1, beta2, eps;
  Real rest1, rest2;  // 1 - beta1, 1 - beta2, rounded once
  Real step_size;     // lr / (1 - beta1^step)
  Real root_bias;     // sqrt(1 - beta2^step)
  Real l2;            // added to the gradient, times the parameter
  Real shrink;        // the parameter is multiplied by this first (AdamW: 1 - lr * decay)
  Real grad_scale;
};

template <class Real>
struct OptimizerKernels {
  void (*sgd)(const SgdStep<Real>&);
  void (*adam)(const AdamStep<Real>&);
};

enum class Cell {
#define LSTMX_CELL(name, type) name,
#include "cells.inc"
#undef LSTMX_CELL
  count
};

// What a target has for one scalar.
template <class Real>
struct RealKernels {
  CellKernels<Real> cells[static_cast<int>(Cell::count)];
  LinearKernels<Real> linear;
  OptimizerKernels<Real> optimizer;
};

// A reference to it is one to the kernels of either scalar.
struct TargetKernels : RealKernels<float>, RealKernels<double> {
  const char* name;
};

#define LSTMX_TARGET(name, features) extern const TargetKernels target_##name;
#include "targets.inc"
#undef LSTMX_TARGET

}  // namespace lstmx
