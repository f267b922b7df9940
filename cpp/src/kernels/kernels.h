// The contract between the kernels and everything above them: the legend, the argument structs and the table that a
// target fills in. It holds plain data only and is compiled into every target, so it includes nothing but <stddef.h>
// and <stdint.h> and defines no function that makes code.
//
// Legend
//   T time steps, B batch rows, I input size, H hidden size (of c), P size of h and y (H, or that of a projection),
//   G gates of a cell (4: i f g o), R gates that have rows in a cell's weights (4, of a GRU 3), N rows of a matrix.
//   Real is float or double; W is the number of them in a vector of the target; PW = G * W, the gates of W hidden
//   units. All matrices are row-major. A View3 is [T,B,K] with free strides between steps and between rows, in numbers,
//   possibly negative; its last axis is contiguous.
// Pointer rules
//   Inputs are never written. Outputs may not overlap inputs or each other. "or null" marks what may be absent.
//   What lies beyond a row's length is never read.
//   The caller allocates everything; sizes come from the table's *_size functions, in numbers. Buffers whose size comes
//   from there are 64-byte aligned; nothing else needs any alignment.
//   Kernels allocate nothing, throw nothing and keep no state.
// Numbers
//   Each output row is one chain of fused multiply-adds in a fixed order (bias, then x, then h, k ascending), so that
//   its bits depend neither on B nor on its position, on the thread count or on how a sequence is cut into calls. Sums
//   over rows (weight and bias gradients) run in blocks of rows in an order that no thread count changes. Denormal
//   numbers are read and written as zero; the caller's floating-point state comes back as it was.
#pragma once
#include <stddef.h>
#include <stdint.h>

namespace lstmx {

using Index = ptrdiff_t;

template <class Real>
struct ConstView3 {
  const Real* data;
  Index step, row;  // numbers between t and t+1, between b and b+1
};

template <class Real>
struct View3 {
  Real* data;
  Index step, row;
};

// The parameters of one layer and direction, PyTorch's shapes and gate order. What a cell does not have is null.
template <class Real>
struct RecurrentWeights {
  const Real* weight_ih;    // [R*H, I]
  const Real* weight_hh;    // [R*H, P]
  const Real* bias_ih;      // [R*H] or null
  const Real* bias_hh;      // [R*H] or null
  const Real* weight_ch;    // [3*H] or null: peepholes, from c into i f o
  const Real* weight_hr;    // [P, H] or null: the projection
  const Real* gain_ih;      // [R*H] or null: of the normalized products with x; with it the other three
  const Real* gain_hh;      // [R*H], of those with h
  const Real* gain_c;       // [H], of the normalized c
  const Real* bias_c;       // [H]
  bool layer_norm = false;  // the products are normalized over units: packed, each gate's rows have mean 0
};

// Each is accumulated; null where the parameter is.
template <class Real>
struct RecurrentGradients {
  Real* weight_ih;
  Real* weight_hh;
  Real* bias_ih;
  Real* bias_hh;
  Real* weight_ch;
  Real* weight_hr;
  Real* gain_ih;
  Real* gain_hh;
  Real* gain_c;
  Real* bias_c;
};

struct RecurrentSizes {
  Index T, B, I, H, P;
  Index rows;       // of all steps together: T * B, or the sum of the lengths
  bool masked;      // in training: whether h is masked before it enters weight_hh
  bool normalized;  // whether there are normalizations inside the recurrence
  bool by_batch;    // then: over the rows of a step; otherwise over the units of a row
  int parts;        // of the numbers in products made by an engine; 0: multiply-add units make them all
};

// A number as the upper half of a float.
using Bf16 = uint16_t;

// A tile is 16 rows or columns by a block of 32 k, as generic/tiles.h lays them out; a result's, 16 by 16.
constexpr Index tile_size = 512, result_size = 256;

// What an engine multiplies: the sum over k of tiles of rows times tiles of columns.
struct TileProduct {
  const Bf16* a[2];  // [block][part][tile] of up to two tiles of rows
  const Bf16* b[4];  // the same of columns: two, or four where there is one tile of rows
  Index blocks;
  Index rows;  // valid rows of all tiles, 1 to 32; one tile of rows up to 16
  float* c;    // for each tile of rows, for each of columns [16][16]
};

// A unit that multiplies bf16 numbers and sums in float32. Each float32 number is given as the sum of 1, 2 or 3 of
// them, its parts, which takes 1, 3 or 6 products; the small ones are summed first. A row of C is the same bits
// whatever stands beside it.
struct Engine {
  const char* name;
  void (*multiply[3])(const TileProduct&);  // of 1, 2 and 3 parts
  void (*enter)();                          // before and after all that a thread multiplies in a call
  void (*leave)();
  // For the choice (products.h): the speed of the products of full tiles over that of the multiply-add units, by parts,
  // 0: not used; and how many rows cost as much as one.
  double gain[3];
  Index rows;
};

// Functions that a cell may apply; alpha and beta as ONNX has them.
enum class Function {
#define LSTMX_FUNCTION(name) name,
#include "functions.inc"
#undef LSTMX_FUNCTION
};

struct Activation {
  Function function;
  double alpha, beta;
};

// What the cell `variant` does beyond the plain one. Of the others, `rnn` reads `output`.
struct VariantOptions {
  bool coupled;      // f = 1 - i
  bool peepholes;    // there is a weight_ch
  bool layer_norm;   // there are gains: W x, U h and what h sees of c are normalized over the units of a row
  bool batch_norm;   // likewise, over the rows of a step
  double eps;        // added to variances
  double gate_clip;  // what functions are applied to is kept within +-gate_clip; infinity: not
  double cell_clip;  // c is; infinity: not
  Activation gate, candidate, output;
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

// Means and variances by step of what a batch normalization normalizes: W x, U h [steps, R*H] and c [steps, H].
template <class Real>
struct Statistics {
  Real *mean[3], *variance[3];
  Index steps;
};

// What only staged cells read (generic/staged_forward.h).
template <class Real>
struct StagedInputs {
  const VariantOptions* options;    // of the cells `variant` and `rnn`
  ConstView3<Real> keep_h, keep_c;  // [T,B,P], [T,B,H], 0 to 1: how much a unit keeps of its value before; or data null
  const Real* h_mask;               // [B,P], training only: h times this enters weight_hh; or null
  Statistics<const Real> running;   // to normalize with, those of the last step serving beyond it; or steps 0
  Statistics<Real> made;            // where those of the batch go, by forward; or steps 0
};

template <class Real>
struct RecurrentForward {
  RecurrentSizes size;
  Schedule schedule;
  const Real* packed;    // from pack_forward
  const Engine* engine;  // for products, or null
  const Bf16* split;     // from split_forward, of size.parts; with an engine
  ConstView3<Real> x;    // [T,B,I]
  const Real* h_0;       // [B,P] or null: zeros
  const Real* c_0;       // [B,H] or null: zeros
  View3<Real> y;         // [T,B,P]; zero beyond a row's length
  Real* h_n;             // [B,P]
  Real* c_n;             // [B,H]
  View3<Real> cells;     // [T,B,H], c after every step, zero beyond a row's length; data null: not wanted
  View3<Real> gates;     // [T,B,G*H], as the cell applied them, the same; only with a tape
  Real* tape;            // tape_size numbers, written for backward; null for inference
  Real* work;            // forward_work_size numbers
  int threads;
  StagedInputs<Real> staged;
};

template <class Real>
struct RecurrentBackward {
  RecurrentSizes size;
  Schedule schedule;        // as given to forward
  const Real* packed;       // from pack_backward, of the weights that forward used
  const Engine* engine;     // as given to forward
  const Bf16* split;        // from split_backward, of size.parts; with an engine
  ConstView3<Real> x;       // as given to forward
  ConstView3<Real> y;       // as forward wrote it
  const Real* h_0;          // as given to forward
  ConstView3<Real> dy;      // [T,B,P]; data null: zeros
  ConstView3<Real> dcells;  // [T,B,H]; data null: zeros
  const Real* dh_n;         // [B,P] or null: zeros
  const Real* dc_n;         // [B,H] or null: zeros
  View3<Real> dx;           // [T,B,I]; data null: not wanted; zero beyond a row's length
  Real* dh_0;               // [B,P] or null: not wanted
  Real* dc_0;               // [B,H] or null: not wanted
  RecurrentGradients<Real> gradients;
  Real* tape;  // as forward filled it; the gates become their gradients
  Real* work;  // backward_work_size numbers
  int threads;
  StagedInputs<Real> staged;  // as given to forward
};

// Packed weights once more, in parts for an engine; null where the target can use none. Sizes are in Bf16. False: the
// weights are not numbers that parts can be made of (generic/tiles.h), so that an engine must not be used.
template <class Real>
struct SplitKernels {
  Index (*forward_size)(Index I, Index H, Index P, int parts);
  Index (*backward_size)(Index I, Index H, Index P, int parts);
  bool (*forward)(const Real* packed, Index I, Index H, Index P, int parts, Bf16* split);
  bool (*backward)(const Real* packed, Index I, Index H, Index P, int parts, Bf16* split);
};

template <class Real>
struct CellKernels {
  Index gate_rows;  // R
  Index (*pack_forward_size)(Index I, Index H, Index P);
  Index (*pack_backward_size)(Index I, Index H, Index P);
  Index (*tape_size)(const RecurrentSizes&);
  Index (*forward_work_size)(const RecurrentSizes&, int threads);
  Index (*backward_work_size)(const RecurrentSizes&, int threads);
  void (*pack_forward)(const RecurrentWeights<Real>&, Index I, Index H, Index P, Real* packed);
  void (*pack_backward)(const RecurrentWeights<Real>&, Index I, Index H, Index P, Real* packed);
  SplitKernels<Real> split;
  void (*forward)(const RecurrentForward<Real>&);
  void (*backward)(const RecurrentBackward<Real>&);
};

template <class Real>
struct LinearForward {
  Index N, in, out;
  const Real* packed;    // from pack_forward
  const Engine* engine;  // for the product, or null
  const Bf16* split;     // from split.forward, of `parts`; with an engine
  int parts;
  const Real* x;  // [N,in], rows x_row numbers apart
  Index x_row;
  Real* y;  // [N,out], rows y_row numbers apart
  Index y_row;
  Real* work;  // work_size numbers
  int threads;
};

template <class Real>
struct LinearBackward {
  Index N, in, out;
  const Real* packed;    // from pack_backward; unused without dx
  const Engine* engine;  // as given to forward
  const Bf16* split;     // from split.backward; with an engine
  int parts;
  const Real* x;  // [N,in]
  Index x_row;
  const Real* dy;  // [N,out]
  Index dy_row;
  Real* dx;  // [N,in] or null: not wanted
  Index dx_row;
  Real* d_weight;  // [out,in], accumulated
  Real* d_bias;    // [out] or null, accumulated
  Real* work;      // work_size numbers
  int threads;
};

template <class Real>
struct LinearKernels {
  Index (*pack_forward_size)(Index in, Index out);
  Index (*pack_backward_size)(Index in, Index out);
  void (*pack_forward)(const Real* weight, const Real* bias_or_null, Index in, Index out, Real* packed);
  void (*pack_backward)(const Real* weight, Index in, Index out, Real* packed);
  Index (*work_size)(Index in, Index out, int parts, int threads);  // of either direction; 0 without an engine
  void (*forward)(const LinearForward<Real>&);
  void (*backward)(const LinearBackward<Real>&);
  SplitKernels<Real> split;  // I is in, H is out, P unused
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

template <class Real>
struct Kernels {
  CellKernels<Real> cells[static_cast<int>(Cell::count)];
  LinearKernels<Real> linear;
  OptimizerKernels<Real> optimizer;
};

// What one target file provides, and the engine that goes with it or null.
struct TargetKernels {
  const char* name;
  const Kernels<float>* float32;
  const Kernels<double>* float64;
  const Engine* engine;

  template <class Real>
  constexpr const Kernels<Real>& of() const {
    if constexpr (sizeof(Real) == sizeof(float)) {
      return *float32;
    } else {
      return *float64;
    }
  }
};

#define LSTMX_TARGET(name, kernels, engine, features) \
  extern const Kernels<float> float32_##kernels;      \
  extern const Kernels<double> float64_##kernels;
#define LSTMX_ENGINE(name) extern const Engine engine_##name;
#include "targets.inc"
#undef LSTMX_TARGET
#undef LSTMX_ENGINE

}  // namespace lstmx
