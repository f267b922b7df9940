// The buffer pool: alignment, reuse without new memory, a bound on what lies idle, life beyond the pool's owner.
#include <cstdint>
#include <vector>

#include "../src/kernels/buffers.h"
#include "check.h"

using lstmx::Buffer;
using lstmx::BufferPool;

int main() {
  auto pool = std::make_shared<BufferPool<float>>();
  const float* first = nullptr;
  {
    const Buffer<float> buffer = pool->acquire(100);
    first = buffer.data();
    CHECK(reinterpret_cast<std::uintptr_t>(first) % 64 == 0);
  }
  for (int i = 0; i < 10; ++i) CHECK(pool->acquire(60 + i).data() == first);  // the idle one serves smaller wishes
  {
    const Buffer<float> a = pool->acquire(100), b = pool->acquire(100);
    CHECK(a.data() != b.data());
  }
  std::vector<Buffer<float>> many;
  for (int i = 0; i < 20; ++i) many.push_back(pool->acquire(1000 + i));
  many.clear();
  Buffer<float> outlives = pool->acquire(5);
  pool.reset();
  outlives.data()[4] = 1.0f;
  return 0;
}
