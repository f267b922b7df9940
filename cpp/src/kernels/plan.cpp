#include "plan.h"

#include <algorithm>
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

template <class Real>
const CellKernels<Real>& kernels_of(const RealKernels<Real>& target, Cell cell) {
  return target.cells[static_cast<int>(cell)];
}

template <class Real>
const LinearKernels<Real>& linear_of(const RealKernels<Real>& target) {
  return target.linear;
}

// Runs the kernel over the steps [begin, begin + rows' T) of a call, from c_0 and h_0 as given.
template <class Real>
void run_forward(const CellKernels<Real>& kernels, const Packed<Real>& packed, BufferPool<Real>& pool,
                 const RecurrentSizes& size, const Schedule& schedule, const RecurrentCall<Real>& call, Real* tape) {
  RecurrentForward<Real> args{};
  args.size = size;
  args.schedule = schedule;
  args.packed = packed.buffer.data();
  args.x = call.x;
  args.h_0 = call.h_0;
  args.c_0 = call.c_0;
  args.y = call.y;
  args.h_n = call.h_n;
  args.c_n = call.c_n;
  args.tape = tape;
  args.threads = call.threads;
  const Buffer<Real> work = pool.acquire(kernels.forward_work_size(size, call.threads));
  args.work = work.data();
  kernels.forward(args);
}

}  // namespace

template <class Real>
std::shared_ptr<const Packed<Real>> PackedCache<Real>::get(const TargetKernels& target, std::int64_t version,
                                                           Index size, BufferPool<Real>& pool,
                                                           const std::function<void(Real*)>& pack) {
  const std::lock_guard lock(mutex_);
  if (!latest_ || latest_->target != &target || latest_->version != version) {
    latest_.reset();  // its buffer may serve again
    auto packed = std::make_shared<Packed<Real>>(Packed<Real>{&target, version, pool.acquire(size)});
    pack(packed->buffer.data());
    latest_ = std::move(packed);
  }
  return latest_;
}

template <class Real>
RecurrentPlan<Real>::RecurrentPlan(Cell cell, Index input_size, Index hidden_size)
    : cell_(cell), I_(input_size), H_(hidden_size) {
  check_size("input_size", input_size);
  check_size("hidden_size", hidden_size);
}

template <class Real>
std::unique_ptr<RecurrentTape<Real>> RecurrentPlan<Real>::forward(std::int64_t version,
                                                                  const RecurrentWeights<Real>& weights,
                                                                  const RecurrentCall<Real>& call, bool training) {
  const TargetKernels& target = active_target();
  const CellKernels<Real>& kernels = kernels_of<Real>(target, cell_);
  Rows rows(call.T, call.B, call.lengths, call.resets, call.reset_step, call.reset_row);
  const RecurrentSizes size{call.T, call.B, I_, H_, rows.count()};
  const auto packed = forward_.get(target, version, kernels.pack_forward_size(I_, H_), *pool_,
                                   [&](Real* out) { kernels.pack_forward(weights, I_, H_, out); });
  if (!training) {
    run_forward<Real>(kernels, *packed, *pool_, size, rows.schedule(), call, nullptr);
    return nullptr;
  }
  std::unique_ptr<RecurrentTape<Real>> tape(new RecurrentTape<Real>(cell_, size, std::move(rows)));
  tape->packed_backward_ = backward_.get(target, version, kernels.pack_backward_size(I_, H_), *pool_,
                                         [&](Real* out) { kernels.pack_backward(weights, I_, H_, out); });
  tape->pool_ = pool_;
  const Index k = call.checkpoint_steps;
  if (k == 0 || k >= call.T) {
    tape->buffer_ = pool_->acquire(kernels.tape_size(size));
    run_forward<Real>(kernels, *packed, *pool_, size, tape->rows_.schedule(), call, tape->buffer_.data());
    return tape;
  }
  tape->checkpoint_steps_ = k;
  tape->packed_forward_ = packed;
  const Index state = call.B * H_, pieces = (call.T + k - 1) / k;
  tape->buffer_ = pool_->acquire(pieces * state);
  const Buffer<Real> h = pool_->acquire(state);
  RecurrentCall<Real> piece = call;
  for (Index begin = 0, n = 0; begin < call.T; begin += k, ++n) {
    const Index end = std::min(begin + k, call.T);
    // c before the piece: the one given, or where the piece before has left it
    Real* c = tape->buffer_.data() + n * state;
    if (n == 0) {
      if (call.c_0 != nullptr)
        std::copy_n(call.c_0, state, c);
      else
        std::fill_n(c, state, Real(0));
    }
    const Rows part = tape->rows_.piece(begin, end);
    piece.x.data = call.x.data + begin * call.x.step;
    piece.y.data = call.y.data + begin * call.y.step;
    piece.h_0 = n == 0 ? call.h_0 : h.data();
    piece.c_0 = c;
    piece.h_n = end == call.T ? call.h_n : h.data();
    piece.c_n = end == call.T ? call.c_n : c + state;
    run_forward<Real>(kernels, *packed, *pool_, {end - begin, call.B, I_, H_, part.count()}, part.schedule(), piece,
                      nullptr);
  }
  return tape;
}

template <class Real>
RecurrentTape<Real>::RecurrentTape(Cell cell, RecurrentSizes size, Rows rows)
    : cell_(cell), size_(size), rows_(std::move(rows)) {}

template <class Real>
void RecurrentTape<Real>::backward(RecurrentBackward<Real> args) {
  if (!packed_backward_) throw std::logic_error("backward: was already called for this forward");
  if (checkpoint_steps_ > 0) {
    backward_in_pieces(args);
  } else {
    const CellKernels<Real>& kernels = kernels_of<Real>(*packed_backward_->target, cell_);
    const Buffer<Real> work = pool_->acquire(kernels.backward_work_size(size_));
    args.size = size_;
    args.schedule = rows_.schedule();
    args.packed = packed_backward_->buffer.data();
    args.tape = buffer_.data();
    args.work = work.data();
    kernels.backward(args);
  }
  packed_backward_ = packed_forward_ = nullptr;
  buffer_ = Buffer<Real>();
}

// For each piece from the last: the forward pass once more, now with its gates, then backward through it.
template <class Real>
void RecurrentTape<Real>::backward_in_pieces(const RecurrentBackward<Real>& args) const {
  const CellKernels<Real>& kernels = kernels_of<Real>(*packed_backward_->target, cell_);
  const auto [T, B, I, H, count] = size_;
  const Index k = checkpoint_steps_, state = B * H;
  const Buffer<Real> scratch = pool_->acquire(7 * state + k * state);
  Real* h_0 = scratch.data();
  RecurrentCall<Real> again{};
  again.B = B;
  again.h_n = h_0 + state;
  again.c_n = h_0 + 2 * state;
  again.y = {h_0 + 7 * state, state, H};
  again.threads = args.threads;
  RecurrentBackward<Real> piece = args;
  piece.packed = packed_backward_->buffer.data();
  for (Index begin = (T - 1) / k * k, turn = 0; begin >= 0; begin -= k, turn ^= 1) {
    const Index end = std::min(begin + k, T);
    const Rows rows = rows_.piece(begin, end);
    const RecurrentSizes size{end - begin, B, I, H, rows.count()};
    again.x = {args.x.data + begin * args.x.step, args.x.step, args.x.row};
    again.h_0 = args.h_0;
    if (begin > 0) {
      for (Index b = 0; b < B; ++b)
        std::copy_n(args.y.data + (begin - 1) * args.y.step + b * args.y.row, H, h_0 + b * H);
      again.h_0 = h_0;
    }
    again.c_0 = buffer_.data() + begin / k * state;
    const Buffer<Real> tape = pool_->acquire(kernels.tape_size(size));
    run_forward<Real>(kernels, *packed_forward_, *pool_, size, rows.schedule(), again, tape.data());

    const Buffer<Real> work = pool_->acquire(kernels.backward_work_size(size));
    piece.size = size;
    piece.schedule = rows.schedule();
    piece.x = again.x;
    piece.y.data = args.y.data + begin * args.y.step;
    piece.h_0 = again.h_0;
    if (args.dy.data != nullptr) piece.dy.data = args.dy.data + begin * args.dy.step;
    if (args.dx.data != nullptr) piece.dx.data = args.dx.data + begin * args.dx.step;
    // the state's gradient goes from piece to piece through two buffers in turn
    Real* carry = h_0 + (3 + 2 * turn) * state;
    piece.dh_0 = begin > 0 ? carry : args.dh_0;
    piece.dc_0 = begin > 0 ? carry + state : args.dc_0;
    piece.tape = tape.data();
    piece.work = work.data();
    kernels.backward(piece);
    piece.dh_n = carry;
    piece.dc_n = carry + state;
  }
}

template <class Real>
LinearPlan<Real>::LinearPlan(Index in, Index out) : in_(in), out_(out) {
  check_size("in_features", in);
  check_size("out_features", out);
}

template <class Real>
std::unique_ptr<LinearTape<Real>> LinearPlan<Real>::forward(std::int64_t version, const Real* weight, const Real* bias,
                                                            LinearForward<Real> args, bool training) {
  const TargetKernels& target = active_target();
  const LinearKernels<Real>& kernels = linear_of<Real>(target);
  const auto packed = forward_.get(target, version, kernels.pack_forward_size(in_, out_), *pool_,
                                   [&](Real* out) { kernels.pack_forward(weight, bias, in_, out_, out); });
  args.in = in_;
  args.out = out_;
  args.packed = packed->buffer.data();
  kernels.forward(args);
  if (!training) return nullptr;
  return std::make_unique<LinearTape<Real>>(
      in_, out_, args.N, backward_.get(target, version, kernels.pack_backward_size(in_, out_), *pool_, [&](Real* out) {
        kernels.pack_backward(weight, in_, out_, out);
      }));
}

template <class Real>
LinearTape<Real>::LinearTape(Index in, Index out, Index N, std::shared_ptr<const Packed<Real>> packed)
    : in_(in), out_(out), N_(N), packed_(std::move(packed)) {}

template <class Real>
void LinearTape<Real>::backward(LinearBackward<Real> args) const {
  args.N = N_;
  args.in = in_;
  args.out = out_;
  args.packed = packed_->buffer.data();
  linear_of<Real>(*packed_->target).backward(args);
}

template class RecurrentTape<float>;
template class RecurrentTape<double>;
template class RecurrentPlan<float>;
template class RecurrentPlan<double>;
template class LinearTape<float>;
template class LinearTape<double>;
template class LinearPlan<float>;
template class LinearPlan<double>;

}  // namespace lstmx
