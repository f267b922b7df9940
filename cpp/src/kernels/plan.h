// What persists between the calls of a layer: its packed weights and its workspaces. A plan belongs to one layer and
// direction; any number of threads may run forward through it at once. Weights are packed when their version or the
// active target has changed, and never otherwise. A tape keeps the packed weights of its forward alive, so that
// backward differentiates what forward computed even if the parameters have moved on.
#pragma once
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>

#include "buffers.h"
#include "kernels.h"

namespace lstmx {

// Weights packed for one target, at one version of the parameters.
struct Packed {
  const TargetKernels* target;
  std::int64_t version;
  Buffer buffer;
};

class PackedCache {
 public:
  // The cached entry of this target and version, or a new one: `size` floats, filled by `pack`.
  std::shared_ptr<const Packed> get(const TargetKernels& target, std::int64_t version, Index size, BufferPool& pool,
                                    const std::function<void(float*)>& pack);

 private:
  std::mutex mutex_;
  std::shared_ptr<const Packed> latest_;
};

class RecurrentTape {
 public:
  RecurrentTape(Cell cell, RecurrentSizes size, std::shared_ptr<const Packed> packed, std::shared_ptr<BufferPool> pool);

  const RecurrentSizes& size() const { return size_; }
  float* data() const { return buffer_.data(); }

  // Completes `args` (size, packed, tape, work) and runs. Once only: the gates are overwritten by their gradients, and
  // a second call throws std::logic_error.
  void backward(RecurrentBackward args);

 private:
  Cell cell_;
  RecurrentSizes size_;
  std::shared_ptr<const Packed> packed_;
  std::shared_ptr<BufferPool> pool_;
  Buffer buffer_;
};

class RecurrentPlan {
 public:
  // Throws std::invalid_argument for sizes below 1 or too large to address.
  RecurrentPlan(Cell cell, Index input_size, Index hidden_size);

  Index input_size() const { return I_; }
  Index hidden_size() const { return H_; }

  // Completes `args` (size's I and H, packed, tape, work) and runs; the tape is null for inference.
  std::unique_ptr<RecurrentTape> forward(std::int64_t version, const RecurrentWeights& weights, RecurrentForward args,
                                         bool training);

 private:
  Cell cell_;
  Index I_, H_;
  std::shared_ptr<BufferPool> pool_ = std::make_shared<BufferPool>();
  PackedCache forward_, backward_;
};

class LinearTape {
 public:
  LinearTape(Index in, Index out, Index N, std::shared_ptr<const Packed> packed);

  Index in() const { return in_; }
  Index out() const { return out_; }
  Index rows() const { return N_; }

  // Completes `args` (sizes, packed) and runs.
  void backward(LinearBackward args) const;

 private:
  Index in_, out_, N_;
  std::shared_ptr<const Packed> packed_;
};

class LinearPlan {
 public:
  // Throws std::invalid_argument for sizes below 1 or too large to address.
  LinearPlan(Index in, Index out);

  Index in() const { return in_; }
  Index out() const { return out_; }

  // Completes `args` (in, out, packed) and runs; the tape is null for inference.
  std::unique_ptr<LinearTape> forward(std::int64_t version, const float* weight, const float* bias, LinearForward args,
                                      bool training);

 private:
  Index in_, out_;
  std::shared_ptr<BufferPool> pool_ = std::make_shared<BufferPool>();
  PackedCache forward_, backward_;
};

}  // namespace lstmx
