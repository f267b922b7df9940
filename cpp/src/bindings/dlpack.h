// The part of DLPack's binary interface, version 1, that is used here: a tensor as another library describes it, and
// the table of functions by which a library reads and makes its own ("__dlpack_c_exchange_api__", a capsule on the
// class of its tensors). Layouts are DLPack's; fields that nothing here touches are there for their place. Source:
// https://dmlc.github.io/dlpack/latest/c_api.html.
#pragma once
#include <cstdint>

namespace lstmx::dlpack {

inline constexpr const char* capsule_name = "dlpack_exchange_api";
inline constexpr std::uint32_t major_version = 1;  // within which layouts do not change
inline constexpr std::int32_t cpu = 1;             // a device type
inline constexpr std::uint8_t int_code = 0, float_code = 2;

struct Version {
  std::uint32_t major, minor;
};

struct Device {
  std::int32_t type, number;
};

struct DataType {
  std::uint8_t code, bits;
  std::uint16_t lanes;
};

struct Tensor {
  void* data;
  Device device;
  std::int32_t ndim;
  DataType dtype;
  std::int64_t* shape;    // [ndim]
  std::int64_t* strides;  // [ndim], in numbers; before version 1.2 null: contiguous
  std::uint64_t byte_offset;
};

// A tensor that owns itself: whoever has it calls its deleter, or gives it on.
struct ManagedTensor {
  Version version;
  void* context;
  void (*deleter)(ManagedTensor* self);
  std::uint64_t flags;
  Tensor tensor;
};

// Functions return 0, or -1 with a Python exception set.
struct ExchangeApi {
  Version version;
  const ExchangeApi* older;  // or null
  void (*allocate)();
  int (*own)(void* object, ManagedTensor** tensor);
  int (*to_object)(ManagedTensor* stolen, void** object);
  int (*view)(void* object, Tensor* tensor);  // or null; what it points to is the object's
  int (*work_stream)(std::int32_t device_type, std::int32_t device_number, void** stream);
};

}  // namespace lstmx::dlpack
