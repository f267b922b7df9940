// Aligned buffers of numbers that outlive a call: a pool hands them out and takes them back, so that steady work
// touches no new pages. A pool keeps a few idle buffers at most; any thread may acquire and release.
#pragma once
#include <cstddef>
#include <memory>
#include <mutex>
#include <vector>

namespace lstmx {

template <class Real>
class BufferPool;

// Move-only; goes back to its pool when destroyed. Contents are unspecified.
template <class Real>
class Buffer {
 public:
  Buffer() = default;
  Buffer(Buffer&& other) noexcept = default;
  Buffer& operator=(Buffer&& other) noexcept;
  ~Buffer();

  Real* data() const { return memory_.get(); }

 private:
  friend class BufferPool<Real>;
  struct Free {
    void operator()(Real* p) const;
  };

  std::unique_ptr<Real[], Free> memory_;
  std::size_t size_ = 0;
  std::shared_ptr<BufferPool<Real>> pool_;
};

template <class Real>
class BufferPool : public std::enable_shared_from_this<BufferPool<Real>> {
 public:
  // At least `size` numbers, 64-byte aligned. Throws std::bad_alloc.
  Buffer<Real> acquire(std::ptrdiff_t size);

 private:
  friend class Buffer<Real>;
  static constexpr std::size_t most_idle = 4;

  void release(Buffer<Real>&& buffer) noexcept;

  std::mutex mutex_;
  std::vector<Buffer<Real>> idle_;
};

}  // namespace lstmx
