// NumPy arrays as the kernels' views. Python has validated already; these checks keep a wrong call from touching
// memory: they name the argument and throw before anything is written.
#pragma once
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <optional>
#include <string>

#include "../kernels/kernels.h"

namespace lstmx::bindings {

namespace py = pybind11;
using Optional = std::optional<py::array>;

enum class Access { read, write };

[[noreturn]] inline void refuse(const char* name, const std::string& expected) {
  throw py::value_error(std::string(name) + ": expected " + expected);
}

// A float32 array whose last axis is contiguous; the strides of the others in floats.
class Array {
 public:
  Array(const char* name, const py::array& array, int ndim, Access access) : name_(name), array_(array) {
    if (array.ndim() != ndim) refuse(name, std::to_string(ndim) + " dimensions");
    const auto* proxy = py::detail::array_proxy(array.ptr());
    const auto* dtype = py::detail::array_descriptor_proxy(proxy->descr);
    if (dtype->type_num != 11 || dtype->byteorder != '=') refuse(name, "float32");  // 11: NPY_FLOAT; '=': native order
    if (access == Access::write && !array.writeable()) refuse(name, "a writable array");
    for (int axis = 0; axis < ndim; ++axis) {
      if (array.strides(axis) % Index{sizeof(float)} != 0 && array.shape(axis) > 1)
        refuse(name, "strides of whole floats");
    }
    if (array.size() > 0 && array.shape(ndim - 1) > 1 && array.strides(ndim - 1) != Index{sizeof(float)})
      refuse(name, "a contiguous last axis");
  }

  Array& shaped(std::initializer_list<Index> shape) {
    int axis = 0;
    for (const Index n : shape) {
      if (array_.shape(axis++) != n) {
        std::string text = "shape (";
        for (const Index m : shape) text += std::to_string(m) + ", ";
        refuse(name_, text.substr(0, text.size() - 2) + ")");
      }
    }
    return *this;
  }

  // all axes contiguous
  Array& dense() {
    Index expected = 1;
    for (int axis = static_cast<int>(array_.ndim()) - 1; axis >= 0; --axis) {
      if (array_.size() > 0 && array_.shape(axis) > 1 && array_.strides(axis) != expected * Index{sizeof(float)})
        refuse(name_, "a C-contiguous array");
      expected *= array_.shape(axis);
    }
    return *this;
  }

  Index shape(int axis) const { return array_.shape(axis); }
  Index stride(int axis) const { return array_.strides(axis) / Index{sizeof(float)}; }
  const float* data() const { return static_cast<const float*>(array_.data()); }
  float* mutable_data() const { return const_cast<float*>(data()); }  // Access::write was checked

  ConstView3 view3() const { return {data(), stride(0), stride(1)}; }
  View3 mutable_view3() const { return {mutable_data(), stride(0), stride(1)}; }

 private:
  const char* name_;
  const py::array& array_;
};

// Whether kernels can read the object as it is: a float32 array, aligned, all axes contiguous.
inline bool is_dense(py::handle object) {
  if (!py::isinstance<py::array_t<float, 0>>(object)) return false;
  constexpr int wanted = py::detail::npy_api::NPY_ARRAY_ALIGNED_ | py::detail::npy_api::NPY_ARRAY_C_CONTIGUOUS_;
  return (py::reinterpret_borrow<py::array>(object).flags() & wanted) == wanted;
}

// The same of an array of `shape`, -1 being any extent, of which only the last axis need be contiguous.
inline bool is_readable(py::handle object, std::initializer_list<Index> shape) {
  if (!py::isinstance<py::array_t<float, 0>>(object)) return false;
  const auto array = py::reinterpret_borrow<py::array>(object);
  if (!(array.flags() & py::detail::npy_api::NPY_ARRAY_ALIGNED_) ||
      array.ndim() != static_cast<py::ssize_t>(shape.size()))
    return false;
  int axis = 0;
  for (const Index n : shape) {
    if (n >= 0 && array.shape(axis) != n) return false;
    ++axis;
  }
  return array.shape(axis - 1) <= 1 || array.strides(axis - 1) == Index{sizeof(float)};
}

// dense array of a known shape, or null where it may be absent
inline const float* dense_input(const char* name, const py::array& array, std::initializer_list<Index> shape) {
  return Array(name, array, static_cast<int>(shape.size()), Access::read).shaped(shape).dense().data();
}

inline const float* dense_input(const char* name, const Optional& array, std::initializer_list<Index> shape) {
  return array ? dense_input(name, *array, shape) : nullptr;
}

inline float* dense_output(const char* name, const py::array& array, std::initializer_list<Index> shape) {
  return Array(name, array, static_cast<int>(shape.size()), Access::write).shaped(shape).dense().mutable_data();
}

inline float* dense_output(const char* name, const Optional& array, std::initializer_list<Index> shape) {
  return array ? dense_output(name, *array, shape) : nullptr;
}

inline int check_threads(int threads) {
  if (threads < 1) refuse("threads", "at least 1");
  return threads;
}

void bind_recurrent(py::module_& m);
void bind_linear(py::module_& m);
void bind_optimizers(py::module_& m);
void bind_runtime(py::module_& m);

}  // namespace lstmx::bindings
