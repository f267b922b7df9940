#include "exchange.h"

#include <algorithm>
#include <limits>
#include <new>

#include "dlpack.h"

namespace lstmx::bindings {
namespace {

// A tensor on its way into a library, which calls its deleter: everything in one piece of memory, the numbers last.
struct MadeTensor {
  dlpack::ManagedTensor managed;
  std::array<std::int64_t, most_axes> shape, strides;

  static MadeTensor* allocate(std::initializer_list<Index> shape, int bits) {
    Index size = 1;
    for (const Index n : shape) {
      if (n > 0 && size > std::numeric_limits<Index>::max() / bits / n) throw std::bad_alloc();
      size *= n;
    }
    constexpr std::size_t head = (sizeof(MadeTensor) + alignment - 1) / alignment * alignment;
    void* memory = ::operator new(head + static_cast<std::size_t>(size * bits / 8), std::align_val_t{alignment});
    auto* made = new (memory) MadeTensor{};
    made->managed.version = {dlpack::major_version, 0};
    made->managed.deleter = &free;
    dlpack::Tensor& tensor = made->managed.tensor;
    tensor.data = size > 0 ? static_cast<char*>(memory) + head : nullptr;
    tensor.device = {dlpack::cpu, 0};
    tensor.ndim = static_cast<std::int32_t>(shape.size());
    tensor.dtype = {dlpack::float_code, static_cast<std::uint8_t>(bits), 1};
    tensor.shape = made->shape.data();
    tensor.strides = made->strides.data();
    std::copy(shape.begin(), shape.end(), tensor.shape);
    Index stride = 1;
    for (int axis = tensor.ndim - 1; axis >= 0; --axis) {
      tensor.strides[axis] = stride;
      stride *= tensor.shape[axis];
    }
    return made;
  }

  static void free(dlpack::ManagedTensor* managed) { ::operator delete(managed, std::align_val_t{alignment}); }

 private:
  static constexpr std::size_t alignment = 64;
};

class DlpackExchange : public Exchange {
 public:
  DlpackExchange(py::type kind, const dlpack::ExchangeApi& api) : kind_(std::move(kind)), api_(api) {}

  bool read(py::handle object, Strided& to) const override {
    if (!PyObject_TypeCheck(object.ptr(), reinterpret_cast<PyTypeObject*>(kind_.ptr()))) return false;
    dlpack::Tensor tensor;
    if (api_.view(object.ptr(), &tensor) != 0) {  // it has no strides, or is not to be seen from outside
      PyErr_Clear();
      return false;
    }
    const auto [code, bits, lanes] = tensor.dtype;
    if (tensor.device.type != dlpack::cpu || tensor.ndim > most_axes || lanes != 1 ||
        (code != dlpack::float_code && code != dlpack::int_code))
      return false;
    to.ndim = tensor.ndim;
    to.bits = bits;
    to.floating = code == dlpack::float_code;
    Index size = 1;
    for (int axis = tensor.ndim - 1; axis >= 0; --axis) {
      to.shape[axis] = tensor.shape[axis];
      to.strides[axis] = tensor.strides != nullptr ? tensor.strides[axis] : size;
      size *= to.shape[axis];
    }
    if (tensor.data == nullptr && size > 0) return false;
    to.data = static_cast<char*>(tensor.data) + tensor.byte_offset;
    return true;
  }

 private:
  py::object make_floats(std::initializer_list<Index> shape, int bits, void*& data) const override {
    auto* made = MadeTensor::allocate(shape, bits);
    data = made->managed.tensor.data;
    void* object = nullptr;
    if (api_.to_object(&made->managed, &object) != 0) throw py::error_already_set();
    return py::reinterpret_steal<py::object>(static_cast<PyObject*>(object));
  }

  py::type kind_;
  const dlpack::ExchangeApi& api_;  // lives as long as the process
};

class NumpyExchange : public Exchange {
 public:
  bool read(py::handle object, Strided& to) const override {
    if (!py::isinstance<py::array>(object)) return false;
    const auto array = py::reinterpret_borrow<py::array>(object);
    const py::dtype dtype = array.dtype();
    const bool floating = dtype.kind() == 'f';
    if (array.ndim() > most_axes || dtype.byteorder() != '=' || (!floating && dtype.kind() != 'i')) return false;
    to.data = const_cast<void*>(array.data());
    to.ndim = static_cast<int>(array.ndim());
    to.bits = 8 * static_cast<int>(dtype.itemsize());
    to.floating = floating;
    for (int axis = 0; axis < to.ndim; ++axis) {
      to.shape[axis] = array.shape(axis);
      to.strides[axis] = array.strides(axis) / dtype.itemsize();  // a tensor's are whole numbers
    }
    return true;
  }

 private:
  py::object make_floats(std::initializer_list<Index> shape, int bits, void*& data) const override {
    py::array made(py::dtype(bits == 32 ? "float32" : "float64"), std::vector<Index>(shape));
    data = made.mutable_data();
    return made;
  }
};

}  // namespace

std::shared_ptr<Exchange> dlpack_exchange(py::type kind) {
  const py::object capsule = py::getattr(kind, "__dlpack_c_exchange_api__", py::none());
  if (!PyCapsule_IsValid(capsule.ptr(), dlpack::capsule_name)) return nullptr;
  const auto* api = static_cast<const dlpack::ExchangeApi*>(PyCapsule_GetPointer(capsule.ptr(), dlpack::capsule_name));
  while (api != nullptr && api->version.major > dlpack::major_version) api = api->older;
  if (api == nullptr || api->version.major != dlpack::major_version || api->view == nullptr) return nullptr;
  return std::make_shared<DlpackExchange>(std::move(kind), *api);
}

std::shared_ptr<Exchange> numpy_exchange() { return std::make_shared<NumpyExchange>(); }

}  // namespace lstmx::bindings
