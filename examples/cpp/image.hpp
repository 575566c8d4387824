// Images for a classifier.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

// Returns an image as float32 [1, 3, H, W] or whatever shape the model takes: the elements of a .npy file as they are, or
// a binary .ppm of the model's height and width, normalized as for ImageNet. Throws std::runtime_error with a sentence.
std::vector<float> ReadImage(const std::string& path, const std::vector<int64_t>& shape);
