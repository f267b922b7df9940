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

template <class Real>
constexpr const char* name_of = sizeof(Real) == 4 ? "float32" : "float64";

// An array of Real whose last axis is contiguous; the strides of the others in numbers.
template <class Real>
class Array {
 public:
  Array(const char* name, const py::array& array, int ndim, Access access) : name_(name), array_(array) {
    if (array.ndim() != ndim) refuse(name, std::to_string(ndim) + " dimensions");
    const auto* proxy = py::detail::array_proxy(array.ptr());
    const auto* dtype = py::detail::array_descriptor_proxy(proxy->descr);
    constexpr int wanted = sizeof(Real) == 4 ? 11 : 12;  // NPY_FLOAT, NPY_DOUBLE; '=': native order
    if (dtype->type_num != wanted || dtype->byteorder != '=') refuse(name, name_of<Real>);
    if (access == Access::write && !array.writeable()) refuse(name, "a writable array");
    for (int axis = 0; axis < ndim; ++axis) {
      if (array.strides(axis) % Index{sizeof(Real)} != 0 && array.shape(axis) > 1)
        refuse(name, "strides of whole numbers");
    }
    if (array.size() > 0 && array.shape(ndim - 1) > 1 && array.strides(ndim - 1) != Index{sizeof(Real)})
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
      if (array_.size() > 0 && array_.shape(axis) > 1 && array_.strides(axis) != expected * Index{sizeof(Real)})
        refuse(name_, "a C-contiguous array");
      expected *= array_.shape(axis);
    }
    return *this;
  }

  Index shape(int axis) const { return array_.shape(axis); }
  Index stride(int axis) const { return array_.strides(axis) / Index{sizeof(Real)}; }
  const Real* data() const { return static_cast<const Real*>(array_.data()); }
  Real* mutable_data() const { return const_cast<Real*>(data()); }  // Access::write was checked

  ConstView3<Real> view3() const { return {data(), stride(0), stride(1)}; }
  View3<Real> mutable_view3() const { return {mutable_data(), stride(0), stride(1)}; }

 private:
  const char* name_;
  const py::array& array_;
};

// Whether kernels can read the object as it is: an array of Real, aligned, all axes contiguous.
template <class Real>
bool is_dense(py::handle object) {
  if (!py::isinstance<py::array_t<Real, 0>>(object)) return false;
  constexpr int wanted = py::detail::npy_api::NPY_ARRAY_ALIGNED_ | py::detail::npy_api::NPY_ARRAY_C_CONTIGUOUS_;
  return (py::reinterpret_borrow<py::array>(object).flags() & wanted) == wanted;
}

// The same of an array of `shape`, -1 being any extent, of which only the last axis need be contiguous.
template <class Real>
bool is_readable(py::handle object, std::initializer_list<Index> shape) {
  if (!py::isinstance<py::array_t<Real, 0>>(object)) return false;
  const auto array = py::reinterpret_borrow<py::array>(object);
  if (!(array.flags() & py::detail::npy_api::NPY_ARRAY_ALIGNED_) ||
      array.ndim() != static_cast<py::ssize_t>(shape.size()))
    return false;
  int axis = 0;
  for (const Index n : shape) {
    if (n >= 0 && array.shape(axis) != n) return false;
    ++axis;
  }
  return array.shape(axis - 1) <= 1 || array.strides(axis - 1) == Index{sizeof(Real)};
}

// dense array of a known shape, or null where it may be absent
template <class Real>
const Real* dense_input(const char* name, const py::array& array, std::initializer_list<Index> shape) {
  return Array<Real>(name, array, static_cast<int>(shape.size()), Access::read).shaped(shape).dense().data();
}

template <class Real>
const Real* dense_input(const char* name, const Optional& array, std::initializer_list<Index> shape) {
  return array ? dense_input<Real>(name, *array, shape) : nullptr;
}

template <class Real>
Real* dense_output(const char* name, const py::array& array, std::initializer_list<Index> shape) {
  return Array<Real>(name, array, static_cast<int>(shape.size()), Access::write).shaped(shape).dense().mutable_data();
}

template <class Real>
Real* dense_output(const char* name, const Optional& array, std::initializer_list<Index> shape) {
  return array ? dense_output<Real>(name, *array, shape) : nullptr;
}

inline int check_threads(int threads) {
  if (threads < 1) refuse("threads", "at least 1");
  return threads;
}

void bind_recurrent(py::module_& m);
void bind_linear(py::module_& m);
void bind_optimizers(py::module_& m);
void bind_runtime(py::module_& m);
void bind_tensors(py::module_& m);

}  // namespace lstmx::bindings
