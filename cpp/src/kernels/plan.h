// What persists between the calls of a layer: its packed weights and its workspaces. A plan belongs to one layer and
// direction; any number of threads may run forward through it at once. Weights are packed when their version or the
// active target has changed, and never otherwise. A tape keeps the packed weights of its forward alive, so that
// backward differentiates what forward computed even if the parameters have moved on.
#pragma once
#include <cstdint>
#include <memory>
#include <mutex>
#include <vector>

#include "buffers.h"
#include "kernels.h"
#include "products.h"
#include "rows.h"

namespace lstmx {

// Weights packed for one target, at one version of the parameters; of `parts` for its engine (then the buffer holds
// Bf16), 0 for products by multiply-add units.
template <class Real>
struct Packed {
  const TargetKernels* target;
  std::int64_t version;
  int parts;
  Buffer<Real> buffer;
  bool fits;  // in parts: whether an engine may use them

  const Bf16* split() const { return reinterpret_cast<const Bf16*>(buffer.data()); }
};

template <class Real>
class PackedCache {
 public:
  // The cached entry of this target, version and parts, or a new one: `size` numbers, filled by `pack`, which says
  // whether they fit.
  template <class Pack>
  std::shared_ptr<const Packed<Real>> get(const TargetKernels& target, std::int64_t version, int parts, Index size,
                                          BufferPool<Real>& pool, const Pack& pack);

 private:
  std::mutex mutex_;
  std::shared_ptr<const Packed<Real>> latest_;
};

// The weights of one direction of a pass: as packed, and in parts where an engine makes the products.
template <class Real>
struct PackedWeights {
  std::shared_ptr<const Packed<Real>> packed, split;  // split null: no engine

  explicit operator bool() const { return packed != nullptr; }
  // sets what a kernel's arguments say of the weights; `engine`: that of the call
  template <class Args>
  void give(Args& args, const Engine* engine) const {
    args.packed = packed->buffer.data();
    args.engine = split ? engine : nullptr;
    args.split = split ? split->split() : nullptr;
  }
};

template <class Real>
class WeightCache {
 public:
  // Of `parts` also in parts, unless they do not fit: pack(Real*), split(const Real*, Bf16*) -> whether they do.
  template <class Pack, class Split>
  PackedWeights<Real> get(const TargetKernels& target, std::int64_t version, int parts, Index size, Index split_size,
                          BufferPool<Real>& pool, const Pack& pack, const Split& split);

 private:
  PackedCache<Real> packed_, split_;
};

// What one call of forward reads and writes, beside the weights.
template <class Real>
struct RecurrentCall {
  Index T, B;
  ConstView3<Real> x;
  const Real *h_0, *c_0;        // [B,H] or null
  const std::int64_t* lengths;  // [B] or null
  const unsigned char* resets;  // [T,B] or null
  Index reset_step, reset_row;
  View3<Real> y;
  Real *h_n, *c_n;
  View3<Real> cells, gates;  // data null: not wanted; gates in training only, without checkpoints
  ConstView3<Real> keep_h, keep_c;
  const Real* h_mask;              // [B,P] or null; in training only
  Statistics<const Real> running;  // of batch normalization; steps 0: those of the batch
  Statistics<Real> made;           // [T, ...]; or steps 0
  // Training: 0 keeps every gate; otherwise the states every so many steps, from which backward makes the gates again.
  Index checkpoint_steps;
  int threads;
};

template <class Real>
class RecurrentPlan;

template <class Real>
class RecurrentTape {
 public:
  const RecurrentSizes& size() const { return size_; }
  const VariantOptions& options() const { return options_; }
  Index gate_rows() const;

  // Completes `args` (size, schedule, packed, tape, work, options) and runs. Once only: the gates are overwritten by
  // their gradients, and a second call throws std::logic_error.
  void backward(RecurrentBackward<Real> args);

 private:
  friend class RecurrentPlan<Real>;
  RecurrentTape(Cell cell, const VariantOptions& options, RecurrentSizes size, Rows rows, const Engine* engine);

  void backward_in_pieces(const RecurrentBackward<Real>& args) const;

  Cell cell_;
  VariantOptions options_;
  RecurrentSizes size_;
  Rows rows_;
  const Engine* engine_;
  PackedWeights<Real> packed_forward_, packed_backward_;
  std::shared_ptr<BufferPool<Real>> pool_;
  Index checkpoint_steps_ = 0;
  Buffer<Real> buffer_;  // the kernels' tape; with checkpoints, c before each piece, [pieces][B,H]
};

template <class Real>
class RecurrentPlan {
 public:
  // `output_size`: P, which is H without a projection. Throws std::invalid_argument for sizes below 1 or too large to
  // address, and for P above H.
  RecurrentPlan(Cell cell, Index input_size, Index hidden_size, Index output_size, const VariantOptions& options,
                const ProductSettings& settings);

  Cell cell() const { return cell_; }
  const VariantOptions& options() const { return options_; }
  Index input_size() const { return I_; }
  Index hidden_size() const { return H_; }
  Index output_size() const { return P_; }
  Index gate_rows() const;  // blocks of H rows in its weights

  // what makes the products of a call with B rows on the active target
  Products products(Index B) const;

  // The tape is null for inference.
  std::unique_ptr<RecurrentTape<Real>> forward(std::int64_t version, RecurrentWeights<Real> weights,
                                               const RecurrentCall<Real>& call, bool training);

 private:
  Cell cell_;
  VariantOptions options_;
  ProductSettings settings_;
  Index I_, H_, P_;
  std::shared_ptr<BufferPool<Real>> pool_ = std::make_shared<BufferPool<Real>>();
  WeightCache<Real> forward_, backward_;
};

template <class Real>
class LinearTape {
 public:
  LinearTape(Index in, Index out, Index N, const Products& products, PackedWeights<Real> packed,
             std::shared_ptr<BufferPool<Real>> pool);

  Index in() const { return in_; }
  Index out() const { return out_; }
  Index rows() const { return N_; }

  // Completes `args` (sizes, packed, work) and runs.
  void backward(LinearBackward<Real> args) const;

 private:
  Index in_, out_, N_;
  Products products_;
  PackedWeights<Real> packed_;
  std::shared_ptr<BufferPool<Real>> pool_;
};

template <class Real>
class LinearPlan {
 public:
  // Throws std::invalid_argument for sizes below 1 or too large to address.
  LinearPlan(Index in, Index out, const ProductSettings& settings);

  Index in() const { return in_; }
  Index out() const { return out_; }

  Products products(Index N) const;  // what makes the products of N rows on the active target

  // Completes `args` (in, out, packed, work) and runs; the tape is null for inference.
  std::unique_ptr<LinearTape<Real>> forward(std::int64_t version, const Real* weight, const Real* bias,
                                            LinearForward<Real> args, bool training);

 private:
  Index in_, out_;
  ProductSettings settings_;
  std::shared_ptr<BufferPool<Real>> pool_ = std::make_shared<BufferPool<Real>>();
  WeightCache<Real> forward_, backward_;
};

}  // namespace lstmx
