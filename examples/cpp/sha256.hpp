// SHA-256 (FIPS 180-4).
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

// Returns the hash of the bytes as 64 hexadecimal digits.
std::string Sha256(const uint8_t* data, size_t size);
