// Arrays of any library, read where they lie and made for results: an `Exchange` is a library. One that exports
// DLPack's table of functions is neither built against nor called through Python, which takes tens of nanoseconds an
// array; in the place of any other are NumPy's arrays, which its caller converts from and to.
#pragma once
#include <array>
#include <initializer_list>
#include <memory>

#include "arrays.h"

namespace lstmx::bindings {

constexpr int most_axes = 3;

// An array in memory, of at most `most_axes` axes.
struct Strided {
  void* data;
  int ndim, bits;
  bool floating;                                // else signed integers
  std::array<Index, most_axes> shape, strides;  // in numbers
};

class Exchange {
 public:
  virtual ~Exchange() = default;

  // Whether it is such an array as Strided describes, on the CPU; then it is in `to`, valid as long as the object.
  virtual bool read(py::handle object, Strided& to) const = 0;

  // A new array of Real, all axes contiguous, its contents unspecified; `data` is its memory.
  template <class Real>
  py::object make(std::initializer_list<Index> shape, Real*& data) const {
    void* memory = nullptr;
    py::object made = make_floats(shape, 8 * sizeof(Real), memory);
    data = static_cast<Real*>(memory);
    return made;
  }

 private:
  virtual py::object make_floats(std::initializer_list<Index> shape, int bits, void*& data) const = 0;
};

// `kind`: the class of the library's arrays, instances of which are read; null where that has no such table as is known
// here.
std::shared_ptr<Exchange> dlpack_exchange(py::type kind);

std::shared_ptr<Exchange> numpy_exchange();

}  // namespace lstmx::bindings
