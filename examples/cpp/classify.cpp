// Runs a compiled bundle on an image and prints the five best classes. No Python, no compiler: TVM's runtime library alone.
//
//   classify MODEL.qtr IMAGE.ppm|IMAGE.npy

#include <tvm/ffi/extra/module.h>
#include <tvm/ffi/tvm_ffi.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <numeric>
#include <stdexcept>

#include "bundle.hpp"
#include "image.hpp"

namespace {

namespace ffi = tvm::ffi;

constexpr int kPooledAllocator = 2;
constexpr size_t kBest = 5;

// Returns the module of a library; the file that it is loaded from is gone afterwards.
ffi::Module LoadLibrary(const std::string& bytes) {
  const char* folder = std::getenv("TMPDIR");
  std::string path = std::string(folder == nullptr ? "/tmp" : folder) + "/qtorch_relay_XXXXXX.so";
  const int file = mkstemps(path.data(), 3);
  if (file < 0) throw std::runtime_error("cannot write to " + path + "; set TMPDIR to another folder");
  size_t done = 0;
  while (done < bytes.size()) {
    const ssize_t written = write(file, bytes.data() + done, bytes.size() - done);
    if (written <= 0) break;
    done += static_cast<size_t>(written);
  }
  close(file);
  try {
    if (done != bytes.size()) throw std::runtime_error("cannot write to " + path + ": no space left");
    ffi::Module module = ffi::Module::LoadFromFile(path);
    unlink(path.c_str());
    return module;
  } catch (...) {
    unlink(path.c_str());
    throw;
  }
}

ffi::Function Method(const ffi::Module& module, const char* name) {
  const auto found = module->GetFunction(name);
  if (!found) throw std::runtime_error(std::string("the program has no ") + name);
  return *found;
}

// Returns the first output of the program.
ffi::Tensor Run(const Program& program, const ffi::Tensor& input) {
  const ffi::Module library = LoadLibrary(program.library);
  const ffi::Module machine = Method(library, "vm_load_executable")().cast<ffi::Module>();
  Method(machine, "vm_initialization")(static_cast<int>(kDLCPU), 0, kPooledAllocator);
  std::vector<ffi::AnyView> arguments{input};
  for (const ffi::Tensor& weight : program.weights) arguments.emplace_back(weight);
  ffi::Any result;
  Method(machine, "main").CallPacked(arguments.data(), static_cast<int32_t>(arguments.size()), &result);
  const auto several = result.try_cast<ffi::Array<ffi::Tensor>>();
  return several ? (*several)[0] : result.cast<ffi::Tensor>();
}

// Returns the logits: floats, or codes, which are in the order of the floats they stand for.
std::vector<float> Logits(const ffi::Tensor& output) {
  const size_t count = static_cast<size_t>(output.numel());
  const DLDataType dtype = output.dtype();
  std::vector<float> logits(count);
  for (size_t i = 0; i < count; ++i) {
    if (dtype.code == kDLFloat && dtype.bits == 32) {
      logits[i] = static_cast<const float*>(output.data_ptr())[i];
    } else if (dtype.code == kDLUInt && dtype.bits == 8) {
      logits[i] = static_cast<const uint8_t*>(output.data_ptr())[i];
    } else if (dtype.code == kDLInt && dtype.bits == 8) {
      logits[i] = static_cast<const int8_t*>(output.data_ptr())[i];
    } else {
      throw std::runtime_error("the model's output is neither float32 nor 8-bit codes");
    }
  }
  return logits;
}

void Classify(const std::string& bundle, const std::string& image) {
  const Program program = LoadBundle(bundle);
  if (program.input_dtype != "float32") throw std::runtime_error("the model takes " + program.input_dtype + ", not float32");
  const std::vector<float> pixels = ReadImage(image, program.input_shape);
  const ffi::Tensor input = EmptyTensor(program.input_shape, program.input_dtype);
  std::memcpy(input.data_ptr(), pixels.data(), pixels.size() * sizeof(float));
  const std::vector<float> logits = Logits(Run(program, input));
  std::vector<size_t> order(logits.size());
  std::iota(order.begin(), order.end(), size_t{0});
  const auto better = [&](size_t a, size_t b) { return logits[a] > logits[b]; };
  std::stable_sort(order.begin(), order.end(), better);
  std::printf("target %s\n", program.target.c_str());
  for (size_t i = 0; i < std::min(kBest, order.size()); ++i) std::printf("class %zu: %.9g\n", order[i], logits[order[i]]);
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 3) {
    std::fprintf(stderr, "usage: classify MODEL.qtr IMAGE.ppm|IMAGE.npy\n");
    return 2;
  }
  try {
    Classify(argv[1], argv[2]);
    return 0;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "error: %s\n", error.what());
    return 2;
  }
}
