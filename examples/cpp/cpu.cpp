#include "cpu.hpp"

#include <sys/auxv.h>

#include <fstream>
#include <iterator>
#include <sstream>

std::string CpuMachine() {
#if defined(__aarch64__)
  return "aarch64";
#elif defined(__x86_64__)
  return "x86_64";
#else
  return "another machine";
#endif
}

std::set<std::string> CpuFlags() {
#if defined(__aarch64__)
  // From the Linux kernel's arch/arm64/include/uapi/asm/hwcap.h.
  static const struct {
    const char* name;
    unsigned long word;
    int bit;
  } kFlags[] = {{"asimd", AT_HWCAP, 1},    {"asimdhp", AT_HWCAP, 10}, {"asimddp", AT_HWCAP, 20}, {"sve", AT_HWCAP, 22},
                {"sve2", AT_HWCAP2, 1},    {"i8mm", AT_HWCAP2, 13},   {"bf16", AT_HWCAP2, 14}};
  std::set<std::string> flags;
  for (const auto& flag : kFlags) {
    if (getauxval(flag.word) >> flag.bit & 1) flags.insert(flag.name);
  }
  return flags;
#else
  std::ifstream file("/proc/cpuinfo");
  for (std::string line; std::getline(file, line);) {
    if (line.rfind("flags", 0) != 0) continue;
    std::istringstream words(line.substr(line.find(':') + 1));
    return {std::istream_iterator<std::string>(words), {}};
  }
  return {};
#endif
}
