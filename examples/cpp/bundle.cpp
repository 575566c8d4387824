#include "bundle.hpp"

#include <tvm/ffi/extra/json.h>

#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iterator>
#include <set>
#include <stdexcept>

#include "cpu.hpp"
#include "sha256.hpp"

namespace {

namespace ffi = tvm::ffi;
namespace json = tvm::ffi::json;

using Bytes = std::string;
constexpr int kFormatVersion = 4;
constexpr const char* kComment = "qtorch_relay sha256:";

[[noreturn]] void Fail(const std::string& reason) { throw std::runtime_error("cannot load the bundle: " + reason); }

uint32_t Number(const Bytes& data, size_t at, int bytes) {
  if (at + bytes > data.size()) Fail("it is truncated");
  uint32_t value = 0;
  for (int i = bytes - 1; i >= 0; --i) value = value << 8 | static_cast<uint8_t>(data[at + i]);
  return value;
}

// A zip: its members by name, as ranges of the file, and its comment. Members are stored, not compressed.
struct Zip {
  explicit Zip(const std::string& path) {
    std::ifstream file(path, std::ios::binary);
    if (!file) Fail("there is no such file");
    data.assign(std::istreambuf_iterator<char>(file), {});
    if (data.size() < 22) Fail("it is truncated, or no bundle");
    // The end record is the last thing in the file, before a comment of known length.
    size_t end = data.size() - 22;
    const size_t least = end > 65535 ? end - 65535 : 0;
    while (Number(data, end, 4) != 0x06054b50 || end + 22 + Number(data, end + 20, 2) != data.size()) {
      if (end-- == least) Fail("it is truncated, or no bundle");
    }
    comment = data.substr(end + 22);
    size_t entry = Number(data, end + 16, 4);
    for (uint32_t left = Number(data, end + 10, 2); left > 0; --left) {
      if (Number(data, entry, 4) != 0x02014b50) Fail("it is altered");
      const uint32_t method = Number(data, entry + 10, 2), packed = Number(data, entry + 20, 4);
      const uint32_t size = Number(data, entry + 24, 4), name_size = Number(data, entry + 28, 2);
      const size_t header = Number(data, entry + 42, 4);
      const size_t begin = header + 30 + Number(data, header + 26, 2) + Number(data, header + 28, 2);
      if (method != 0 || packed != size || begin + size > data.size()) Fail("a member is compressed or too large");
      members[data.substr(entry + 46, name_size)] = {begin, size};
      entry += 46 + name_size + Number(data, entry + 30, 2) + Number(data, entry + 32, 2);
    }
  }

  // Returns where a member begins, and its size.
  std::pair<const char*, size_t> Member(const std::string& name) const {
    const auto found = members.find(name);
    if (found == members.end()) Fail("it has no " + name);
    return {data.data() + found->second.first, found->second.second};
  }

  Bytes data, comment;
  std::map<std::string, std::pair<size_t, size_t>> members;
};

std::string Hash(std::pair<const char*, size_t> bytes) {
  return Sha256(reinterpret_cast<const uint8_t*>(bytes.first), bytes.second);
}

json::Value Value(const json::Object& object, const char* key) {
  const auto found = object.find(ffi::String(key));
  if (found == object.end()) Fail(std::string("its manifest has no ") + key);
  return (*found).second;
}

template <typename T>
T Get(const json::Object& object, const char* key) {
  return Value(object, key).cast<T>();
}

// Returns a part of the bundle after comparing its size and hash with the manifest's.
std::pair<const char*, size_t> Part(const Zip& zip, const json::Object& manifest, const std::string& name) {
  const auto member = zip.Member(name);
  const auto part = Get<json::Object>(Get<json::Object>(manifest, "parts"), name.c_str());
  if (static_cast<size_t>(Get<int64_t>(part, "size_bytes")) != member.second ||
      std::string(Get<ffi::String>(part, "sha256")) != Hash(member)) {
    Fail("its part " + name + " was altered");
  }
  return member;
}

// Returns what this CPU lacks for a target, or nothing.
std::string Missing(const json::Object& target) {
  const auto machine = Get<ffi::Optional<ffi::String>>(target, "machine");
  if (machine && std::string(*machine) != CpuMachine()) return "an " + std::string(*machine) + " CPU";
  const std::set<std::string> flags = CpuFlags();
  std::string missing;
  for (const auto& flag : Get<json::Array>(target, "cpu_flags")) {
    const std::string name = flag.cast<ffi::String>();
    if (flags.count(name) == 0) missing += (missing.empty() ? "the CPU flag " : ", ") + name;
  }
  return missing;
}

// Returns the variant with int8 kernels, and of those the one that asks most of this CPU.
json::Object Choose(const json::Object& manifest) {
  ffi::Optional<json::Object> best;
  int64_t most = -1;
  std::string reasons;
  for (const auto& item : Get<json::Array>(manifest, "variants")) {
    const auto variant = item.cast<json::Object>();
    const auto target = Get<json::Object>(variant, "target");
    const std::string missing = Missing(target);
    if (!missing.empty()) {
      reasons += "; " + std::string(Get<ffi::String>(target, "name")) + " needs " + missing;
      continue;
    }
    const bool has_kernels = Value(target, "kernels") != nullptr;
    const int64_t able = has_kernels * 1000 + static_cast<int64_t>(Get<json::Array>(target, "cpu_flags").size());
    if (able >= most) {
      most = able;
      best = variant;
    }
  }
  if (!best) Fail("this CPU runs none of its programs" + reasons);
  return *best;
}

std::vector<int64_t> Shape(const json::Object& spec) {
  std::vector<int64_t> shape;
  for (const auto& size : Get<json::Array>(spec, "shape")) {
    const auto fixed = size.try_cast<int64_t>();
    shape.push_back(fixed ? *fixed : 1);  // a dimension that has a name takes any size: one image here
  }
  return shape;
}

// The memory of a tensor.
struct AlignedMemory {
  void AllocData(DLTensor* tensor) {
    const size_t size = (ffi::GetDataSize(*tensor) + 63) / 64 * 64;
    tensor->data = std::aligned_alloc(64, size == 0 ? 64 : size);
    if (tensor->data == nullptr) throw std::bad_alloc();
  }
  void FreeData(DLTensor* tensor) { std::free(tensor->data); }
};

}  // namespace

tvm::ffi::Tensor EmptyTensor(const std::vector<int64_t>& shape, const std::string& dtype) {
  return ffi::Tensor::FromNDAlloc(AlignedMemory(), ffi::ShapeView(shape.data(), shape.size()),
                                  ffi::StringToDLDataType(dtype), DLDevice{kDLCPU, 0});
}

Program LoadBundle(const std::string& path) {
  const Zip zip(path);
  const auto text = zip.Member("manifest.json");
  if (zip.comment != kComment + Hash(text)) Fail("it is truncated, or its manifest was altered");
  const auto manifest = json::Parse(ffi::String(text.first, text.second)).cast<json::Object>();
  if (Get<int64_t>(manifest, "format_version") != kFormatVersion) Fail("it has another format version; compile it again");
  const auto inputs = Get<json::Array>(manifest, "inputs");
  if (inputs.size() != 1) Fail("the model takes several inputs; this program gives it one image");
  const auto input = inputs[0].cast<json::Object>();
  const auto variant = Choose(manifest);
  Program program{Get<ffi::String>(Get<json::Object>(variant, "target"), "name"), Shape(input),
                  Get<ffi::String>(input, "dtype"), {}, {}};
  const auto library = Part(zip, manifest, Get<ffi::String>(variant, "library"));
  program.library.assign(library.first, library.second);
  std::map<std::string, std::pair<const char*, size_t>> parts;
  for (const auto& item : Get<json::Array>(variant, "weights")) {
    const auto weight = item.cast<json::Object>();
    const std::string name = Get<ffi::String>(weight, "part");
    if (parts.count(name) == 0) parts[name] = Part(zip, manifest, name);
    ffi::Tensor tensor = EmptyTensor(Shape(weight), Get<ffi::String>(weight, "dtype"));
    const size_t size = ffi::GetDataSize(tensor), offset = Get<int64_t>(weight, "offset");
    if (offset > parts[name].second || size > parts[name].second - offset) Fail("a weight lies outside of its part");
    std::memcpy(tensor.data_ptr(), parts[name].first + offset, size);
    program.weights.push_back(tensor);
  }
  return program;
}
