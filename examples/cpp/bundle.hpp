// Reads a bundle (.qtr): a zip of stored members with a manifest in JSON. Sizes and checksums are checked before use.
#pragma once

#include <tvm/ffi/tvm_ffi.h>

#include <cstdint>
#include <map>
#include <string>
#include <vector>

// The program of a bundle that suits this CPU best.
struct Program {
  std::string target;
  std::vector<int64_t> input_shape;
  std::string input_dtype;
  std::string library;                           // the bytes of a shared library
  std::vector<tvm::ffi::Tensor> weights;         // in the order the program takes them
};

// Returns the program; throws std::runtime_error with a sentence that says what is wrong.
Program LoadBundle(const std::string& path);

// Returns an uninitialized tensor whose data starts at a multiple of 64 bytes, as TVM's code assumes.
tvm::ffi::Tensor EmptyTensor(const std::vector<int64_t>& shape, const std::string& dtype);
