#include "plan.h"

#include <stdexcept>
#include <string>
#include <utility>

#include "dispatch.h"

namespace lstmx {
namespace {

// A bound that keeps every size computed from two of these within an Index.
constexpr Index largest_size = Index{1} << 24;

void check_size(const char* name, Index size) {
  if (size < 1 || size > largest_size)
    throw std::invalid_argument(std::string(name) + ": expected 1 to " + std::to_string(largest_size) + ", got " +
                                std::to_string(size));
}

const CellKernels& kernels_of(const TargetKernels& target, Cell cell) { return target.cells[static_cast<int>(cell)]; }

}  // namespace

std::shared_ptr<const Packed> PackedCache::get(const TargetKernels& target, std::int64_t version, Index size,
                                               BufferPool& pool, const std::function<void(float*)>& pack) {
  const std::lock_guard lock(mutex_);
  if (!latest_ || latest_->target != &target || latest_->version != version) {
    latest_.reset();  // its buffer may serve again
    auto packed = std::make_shared<Packed>(Packed{&target, version, pool.acquire(size)});
    pack(packed->buffer.data());
    latest_ = std::move(packed);
  }
  return latest_;
}

RecurrentPlan::RecurrentPlan(Cell cell, Index input_size, Index hidden_size)
    : cell_(cell), I_(input_size), H_(hidden_size) {
  check_size("input_size", input_size);
  check_size("hidden_size", hidden_size);
}

std::unique_ptr<RecurrentTape> RecurrentPlan::forward(std::int64_t version, const RecurrentWeights& weights,
                                                      RecurrentForward args, bool training) {
  const TargetKernels& target = active_target();
  const CellKernels& kernels = kernels_of(target, cell_);
  args.size.I = I_;
  args.size.H = H_;
  const auto packed = forward_.get(target, version, kernels.pack_forward_size(I_, H_), *pool_,
                                   [&](float* out) { kernels.pack_forward(weights, I_, H_, out); });
  std::unique_ptr<RecurrentTape> tape;
  if (training) {
    tape =
        std::make_unique<RecurrentTape>(cell_, args.size,
                                        backward_.get(target, version, kernels.pack_backward_size(I_, H_), *pool_,
                                                      [&](float* out) { kernels.pack_backward(weights, I_, H_, out); }),
                                        pool_);
  }
  const Buffer work = pool_->acquire(kernels.forward_work_size(args.size));
  args.packed = packed->buffer.data();
  args.tape = tape ? tape->data() : nullptr;
  args.work = work.data();
  kernels.forward(args);
  return tape;
}

RecurrentTape::RecurrentTape(Cell cell, RecurrentSizes size, std::shared_ptr<const Packed> packed,
                             std::shared_ptr<BufferPool> pool)
    : cell_(cell),
      size_(size),
      packed_(std::move(packed)),
      pool_(std::move(pool)),
      buffer_(pool_->acquire(kernels_of(*packed_->target, cell_).tape_size(size_))) {}

void RecurrentTape::backward(RecurrentBackward args) {
  if (!packed_) throw std::logic_error("backward: was already called for this forward");
  const std::shared_ptr<const Packed> packed = std::exchange(packed_, nullptr);
  const Buffer tape = std::move(buffer_);
  const CellKernels& kernels = kernels_of(*packed->target, cell_);
  const Buffer work = pool_->acquire(kernels.backward_work_size(size_));
  args.size = size_;
  args.packed = packed->buffer.data();
  args.tape = tape.data();
  args.work = work.data();
  kernels.backward(args);
}

LinearPlan::LinearPlan(Index in, Index out) : in_(in), out_(out) {
  check_size("in_features", in);
  check_size("out_features", out);
}

std::unique_ptr<LinearTape> LinearPlan::forward(std::int64_t version, const float* weight, const float* bias,
                                                LinearForward args, bool training) {
  const TargetKernels& target = active_target();
  const LinearKernels& kernels = target.linear;
  const auto packed = forward_.get(target, version, kernels.pack_forward_size(in_, out_), *pool_,
                                   [&](float* out) { kernels.pack_forward(weight, bias, in_, out_, out); });
  args.in = in_;
  args.out = out_;
  args.packed = packed->buffer.data();
  kernels.forward(args);
  if (!training) return nullptr;
  return std::make_unique<LinearTape>(
      in_, out_, args.N, backward_.get(target, version, kernels.pack_backward_size(in_, out_), *pool_, [&](float* out) {
        kernels.pack_backward(weight, in_, out_, out);
      }));
}

LinearTape::LinearTape(Index in, Index out, Index N, std::shared_ptr<const Packed> packed)
    : in_(in), out_(out), N_(N), packed_(std::move(packed)) {}

void LinearTape::backward(LinearBackward args) const {
  args.N = N_;
  args.in = in_;
  args.out = out_;
  args.packed = packed_->buffer.data();
  packed_->target->linear.backward(args);
}

}  // namespace lstmx
