// What instructions this CPU has.
#pragma once

#include <set>
#include <string>

// Returns "x86_64" or "aarch64", as a bundle's targets say it.
std::string CpuMachine();

// Returns the CPU's flags as the Linux kernel spells them; of ARM's those that targets ask for.
std::set<std::string> CpuFlags();
