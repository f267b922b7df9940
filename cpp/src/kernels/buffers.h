// Aligned float buffers that outlive a call: a pool hands them out and takes them back, so that steady work touches no
// new pages. A pool keeps a few idle buffers at most; any thread may acquire and release.
#pragma once
#include <cstddef>
#include <memory>
#include <mutex>
#include <vector>

namespace lstmx {

class BufferPool;

// Move-only; goes back to its pool when destroyed. Contents are unspecified.
class Buffer {
 public:
  Buffer() = default;
  Buffer(Buffer&& other) noexcept = default;
  Buffer& operator=(Buffer&& other) noexcept;
  ~Buffer();

  float* data() const { return memory_.get(); }

 private:
  friend class BufferPool;
  struct Free {
    void operator()(float* p) const;
  };

  std::unique_ptr<float[], Free> memory_;
  std::size_t floats_ = 0;
  std::shared_ptr<BufferPool> pool_;
};

class BufferPool : public std::enable_shared_from_this<BufferPool> {
 public:
  // At least `floats` floats, 64-byte aligned. Throws std::bad_alloc.
  Buffer acquire(std::ptrdiff_t floats);

 private:
  friend class Buffer;
  static constexpr std::size_t most_idle = 4;

  void release(Buffer&& buffer) noexcept;

  std::mutex mutex_;
  std::vector<Buffer> idle_;
};

}  // namespace lstmx
