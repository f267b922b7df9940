#include "buffers.h"

#include <algorithm>
#include <new>
#include <utility>

namespace lstmx {
namespace {

constexpr std::align_val_t alignment{64};

}  // namespace

template <class Real>
void Buffer<Real>::Free::operator()(Real* p) const {
  ::operator delete[](p, alignment);
}

template <class Real>
Buffer<Real>& Buffer<Real>::operator=(Buffer&& other) noexcept {
  std::swap(memory_, other.memory_);
  std::swap(size_, other.size_);
  std::swap(pool_, other.pool_);
  return *this;
}

template <class Real>
Buffer<Real>::~Buffer() {
  if (!pool_) return;
  const std::shared_ptr<BufferPool<Real>> pool = std::move(pool_);  // an idle buffer does not hold its pool
  pool->release(std::move(*this));
}

template <class Real>
Buffer<Real> BufferPool<Real>::acquire(std::ptrdiff_t size) {
  const std::size_t wanted = static_cast<std::size_t>(std::max<std::ptrdiff_t>(size, 1));
  Buffer<Real> buffer;
  {
    const std::lock_guard lock(mutex_);
    // the smallest idle buffer that is large enough
    auto best = idle_.end();
    for (auto it = idle_.begin(); it != idle_.end(); ++it) {
      if (it->size_ >= wanted && (best == idle_.end() || it->size_ < best->size_)) best = it;
    }
    if (best != idle_.end()) {
      buffer = std::move(*best);
      idle_.erase(best);
    }
  }
  if (!buffer.memory_) {
    buffer.memory_.reset(static_cast<Real*>(::operator new[](wanted * sizeof(Real), alignment)));
    buffer.size_ = wanted;
  }
  buffer.pool_ = this->shared_from_this();
  return buffer;
}

template <class Real>
void BufferPool<Real>::release(Buffer<Real>&& buffer) noexcept {
  Buffer<Real> dropped;  // freed after the lock
  const std::lock_guard lock(mutex_);
  if (idle_.capacity() < most_idle) idle_.reserve(most_idle);
  if (idle_.size() == most_idle) {
    const auto smallest = std::min_element(
        idle_.begin(), idle_.end(), [](const Buffer<Real>& a, const Buffer<Real>& b) { return a.size_ < b.size_; });
    if (smallest->size_ >= buffer.size_) {
      dropped = std::move(buffer);
      return;
    }
    dropped = std::move(*smallest);
    *smallest = std::move(buffer);
    return;
  }
  idle_.push_back(std::move(buffer));
}

template class Buffer<float>;
template class Buffer<double>;
template class BufferPool<float>;
template class BufferPool<double>;

}  // namespace lstmx
