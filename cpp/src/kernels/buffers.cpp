#include "buffers.h"

#include <algorithm>
#include <new>
#include <utility>

namespace lstmx {
namespace {

constexpr std::align_val_t alignment{64};

}  // namespace

void Buffer::Free::operator()(float* p) const { ::operator delete[](p, alignment); }

Buffer& Buffer::operator=(Buffer&& other) noexcept {
  std::swap(memory_, other.memory_);
  std::swap(floats_, other.floats_);
  std::swap(pool_, other.pool_);
  return *this;
}

Buffer::~Buffer() {
  if (!pool_) return;
  const std::shared_ptr<BufferPool> pool = std::move(pool_);  // an idle buffer does not hold its pool
  pool->release(std::move(*this));
}

Buffer BufferPool::acquire(std::ptrdiff_t floats) {
  const std::size_t wanted = static_cast<std::size_t>(std::max<std::ptrdiff_t>(floats, 1));
  Buffer buffer;
  {
    const std::lock_guard lock(mutex_);
    // the smallest idle buffer that is large enough
    auto best = idle_.end();
    for (auto it = idle_.begin(); it != idle_.end(); ++it) {
      if (it->floats_ >= wanted && (best == idle_.end() || it->floats_ < best->floats_)) best = it;
    }
    if (best != idle_.end()) {
      buffer = std::move(*best);
      idle_.erase(best);
    }
  }
  if (!buffer.memory_) {
    buffer.memory_.reset(static_cast<float*>(::operator new[](wanted * sizeof(float), alignment)));
    buffer.floats_ = wanted;
  }
  buffer.pool_ = shared_from_this();
  return buffer;
}

void BufferPool::release(Buffer&& buffer) noexcept {
  Buffer dropped;  // freed after the lock
  const std::lock_guard lock(mutex_);
  if (idle_.capacity() < most_idle) idle_.reserve(most_idle);
  if (idle_.size() == most_idle) {
    const auto smallest = std::min_element(idle_.begin(), idle_.end(),
                                           [](const Buffer& a, const Buffer& b) { return a.floats_ < b.floats_; });
    if (smallest->floats_ >= buffer.floats_) {
      dropped = std::move(buffer);
      return;
    }
    dropped = std::move(*smallest);
    *smallest = std::move(buffer);
    return;
  }
  idle_.push_back(std::move(buffer));
}

}  // namespace lstmx
