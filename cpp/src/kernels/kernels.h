// The contract between the kernels and everything above them: the legend, the argument structs and the table that a
// target fills in. It holds plain data only and is compiled into every target, so it includes nothing but <stddef.h>
// and defines no function.
//
// Legend
//   T time steps, B batch rows, I input size, H hidden size (of c), P size of h and y (H, or that of a projection),
//   G gates of a cell (4: i f g o), R gates that have rows in a cell's weights (4, of a GRU 3), N rows of a matrix.
//   W is the number of floats in a vector of the target; PW = G * W, the gates of W hidden units.
//   All matrices are row-major float32. A View3 is [T,B,K] with free strides between steps and between rows, in
//   floats, possibly negative; its last axis is contiguous.
// Pointer rules
//   Inputs are never written. Outputs may not overlap inputs or each other. "or null" marks what may be absent.
//   What lies beyond a row's length is never read.
//   The caller allocates everything; sizes come from the table's *_size functions, in floats. Buffers whose size comes
//   from there are 64-byte aligned; nothing else needs any alignment.
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

struct ConstView3 {
  const float* data;
  Index step, row;  // floats between t and t+1, between b and b+1
};

struct View3 {
  float* data;
  Index step, row;
};

// The parameters of one layer and direction, PyTorch's shapes and gate order. What a cell does not have is null.
struct RecurrentWeights {
  const float* weight_ih;  // [R*H, I]
  const float* weight_hh;  // [R*H, P]
  const float* bias_ih;    // [R*H] or null
  const float* bias_hh;    // [R*H] or null
  const float* weight_ch;  // [3*H] or null: peepholes, from c into i f o
  const float* weight_hr;  // [P, H] or null: the projection
};

// Each is accumulated; null where the parameter is.
struct RecurrentGradients {
  float* weight_ih;
  float* weight_hh;
  float* bias_ih;
  float* bias_hh;
  float* weight_ch;
  float* weight_hr;
};

struct RecurrentSizes {
  Index T, B, I, H, P;
  Index rows;   // of all steps together: T * B, or the sum of the lengths
  bool masked;  // in training: whether h is masked before it enters weight_hh
};

// Functions that a cell may apply; alpha and beta as ONNX has them.
enum class Function {
#define LSTMX_FUNCTION(name) name,
#include "functions.inc"
#undef LSTMX_FUNCTION
};

struct Activation {
  Function function;
  float alpha, beta;
};

// What the cell `variant` does beyond the plain one.
struct VariantOptions {
  bool coupled;     // f = 1 - i
  bool peepholes;   // there is a weight_ch
  float gate_clip;  // what functions are applied to is kept within +-gate_clip; infinity: not
  float cell_clip;  // c is; infinity: not
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

// What only staged cells read (generic/staged_forward.h).
struct StagedInputs {
  const VariantOptions* options;  // of the cell `variant`
  ConstView3 keep_h, keep_c;      // [T,B,P], [T,B,H], 0 to 1: how much a unit keeps of its value before; or data null
  const float* h_mask;            // [B,P], training only: h times this enters weight_hh; or null
};

struct RecurrentForward {
  RecurrentSizes size;
  Schedule schedule;
  const float* packed;  // from pack_forward
  ConstView3 x;         // [T,B,I]
  const float* h_0;     // [B,P] or null: zeros
  const float* c_0;     // [B,H] or null: zeros
  View3 y;              // [T,B,P]; zero beyond a row's length
  float* h_n;           // [B,P]
  float* c_n;           // [B,H]
  View3 cells;          // [T,B,H], c after every step, zero beyond a row's length; data null: not wanted
  View3 gates;          // [T,B,G*H], as the cell applied them, the same; only with a tape
  float* tape;          // tape_size floats, written for backward; null for inference
  float* work;          // forward_work_size floats
  int threads;
  StagedInputs staged;
};

struct RecurrentBackward {
  RecurrentSizes size;
  Schedule schedule;    // as given to forward
  const float* packed;  // from pack_backward, of the weights that forward used
  ConstView3 x;         // as given to forward
  ConstView3 y;         // as forward wrote it
  const float* h_0;     // as given to forward
  ConstView3 dy;        // [T,B,P]; data null: zeros
  ConstView3 dcells;    // [T,B,H]; data null: zeros
  const float* dh_n;    // [B,P] or null: zeros
  const float* dc_n;    // [B,H] or null: zeros
  View3 dx;             // [T,B,I]; data null: not wanted; zero beyond a row's length
  float* dh_0;          // [B,P] or null: not wanted
  float* dc_0;          // [B,H] or null: not wanted
  RecurrentGradients gradients;
  float* tape;  // as forward filled it; the gates become their gradients
  float* work;  // backward_work_size floats
  int threads;
  StagedInputs staged;  // as given to forward
};

struct CellKernels {
  Index gate_rows;  // R
  Index (*pack_forward_size)(Index I, Index H, Index P);
  Index (*pack_backward_size)(Index I, Index H, Index P);
  Index (*tape_size)(const RecurrentSizes&);
  Index (*forward_work_size)(const RecurrentSizes&, int threads);
  Index (*backward_work_size)(const RecurrentSizes&);
  void (*pack_forward)(const RecurrentWeights&, Index I, Index H, Index P, float* packed);
  void (*pack_backward)(const RecurrentWeights&, Index I, Index H, Index P, float* packed);
  void (*forward)(const RecurrentForward&);
  void (*backward)(const RecurrentBackward&);
};

struct LinearForward {
  Index N, in, out;
  const float* packed;  // from pack_forward
  const float* x;       // [N,in], rows x_row floats apart
  Index x_row;
  float* y;  // [N,out], rows y_row floats apart
  Index y_row;
  int threads;
};

struct LinearBackward {
  Index N, in, out;
  const float* packed;  // from pack_backward; unused without dx
  const float* x;       // [N,in]
  Index x_row;
  const float* dy;  // [N,out]
  Index dy_row;
  float* dx;  // [N,in] or null: not wanted
  Index dx_row;
  float* d_weight;  // [out,in], accumulated
  float* d_bias;    // [out] or null, accumulated
  int threads;
};

struct LinearKernels {
  Index (*pack_forward_size)(Index in, Index out);
  Index (*pack_backward_size)(Index in, Index out);
  void (*pack_forward)(const float* weight, const float* bias_or_null, Index in, Index out, float* packed);
  void (*pack_backward)(const float* weight, Index in, Index out, float* packed);
  void (*forward)(const LinearForward&);
  void (*backward)(const LinearBackward&);
};

// One step of an optimiser over n contiguous parameters; the formulas are PyTorch's.
struct SgdStep {
  float* params;
  const float* grads;
  float* velocity;  // or null without momentum
  Index n;
  float lr, momentum, decay, grad_scale;
  bool nesterov;
};

struct AdamStep {
  float* params;
  const float* grads;
  float* m;
  float* v;
  Index n;
  float beta1, beta2, eps;
  float rest1, rest2;  // 1 - beta1, 1 - beta2, rounded once
  float step_size;     // lr / (1 - beta1^step)
  float root_bias;     // sqrt(1 - beta2^step)
  float l2;            // added to the gradient, times the parameter
  float shrink;        // the parameter is multiplied by this first (AdamW: 1 - lr * decay)
  float grad_scale;
};

struct OptimizerKernels {
  void (*sgd)(const SgdStep&);
  void (*adam)(const AdamStep&);
};

enum class Cell {
#define LSTMX_CELL(name, type) name,
#include "cells.inc"
#undef LSTMX_CELL
  count
};

struct TargetKernels {
  const char* name;
  CellKernels cells[static_cast<int>(Cell::count)];
  LinearKernels linear;
  OptimizerKernels optimizer;
};

#define LSTMX_TARGET(name, features) extern const TargetKernels target_##name;
#include "targets.inc"
#undef LSTMX_TARGET

}  // namespace lstmx
