#include "image.hpp"

#include <cstring>
#include <fstream>
#include <iterator>
#include <sstream>
#include <stdexcept>

namespace {

constexpr float kMean[3] = {0.485f, 0.456f, 0.406f}, kDeviation[3] = {0.229f, 0.224f, 0.225f};

std::string Text(const std::vector<int64_t>& shape) {
  std::string text;
  for (int64_t size : shape) text += (text.empty() ? "" : ", ") + std::to_string(size);
  return text;
}

// NumPy's format, version 1: a magic, the size of the header, the header, the elements.
std::vector<float> ReadNpy(const std::string& data, const std::vector<int64_t>& shape, size_t count) {
  const size_t header = data.size() < 10 ? 0 : static_cast<uint8_t>(data[8]) + 256 * static_cast<uint8_t>(data[9]);
  const std::string text = data.substr(0, 10 + header);
  const bool is_float = text.find("'<f4'") != std::string::npos;
  const bool is_c_order = text.find("'fortran_order': False") != std::string::npos;
  if (data.compare(0, 7, "\x93NUMPY\x01") != 0 || !is_float || !is_c_order ||
      text.find("'shape': (" + Text(shape) + ")") == std::string::npos ||
      data.size() != 10 + header + count * sizeof(float)) {
    throw std::runtime_error("the image is not a .npy file of float32 [" + Text(shape) + "] in C order");
  }
  std::vector<float> image(count);
  std::memcpy(image.data(), data.data() + 10 + header, count * sizeof(float));
  return image;
}

std::vector<float> ReadPpm(const std::string& data, const std::vector<int64_t>& shape, size_t count) {
  std::istringstream words(data);
  std::string magic;
  int64_t width = 0, height = 0, greatest = 0;
  words >> magic >> width >> height >> greatest;
  const size_t begin = static_cast<size_t>(words.tellg()) + 1;
  if (!words || shape.size() != 4 || shape[1] != 3 || shape[2] != height || shape[3] != width || greatest != 255 ||
      data.size() != begin + count) {
    throw std::runtime_error("the image is not a binary .ppm (P6, 255, no comments) of the model's size, [" +
                             Text(shape) + "]");
  }
  std::vector<float> image(count);
  const size_t pixels = count / 3;
  for (size_t i = 0; i < count; ++i) {
    const size_t channel = i % 3;
    const float value = static_cast<uint8_t>(data[begin + i]) / 255.0f;
    image[channel * pixels + i / 3] = (value - kMean[channel]) / kDeviation[channel];
  }
  return image;
}

}  // namespace

std::vector<float> ReadImage(const std::string& path, const std::vector<int64_t>& shape) {
  std::ifstream file(path, std::ios::binary);
  if (!file) throw std::runtime_error(path + ": there is no such file");
  const std::string data{std::istreambuf_iterator<char>(file), {}};
  size_t count = 1;
  for (int64_t size : shape) count *= static_cast<size_t>(size);
  return data.compare(0, 2, "P6") == 0 ? ReadPpm(data, shape, count) : ReadNpy(data, shape, count);
}
