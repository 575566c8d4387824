"""64-bit ARM processors and boards as data: LLVM's name of a CPU and the target whose int8 kernels it runs.

Sources: what a CPU has is in its Arm Technical Reference Manual (developer.arm.com/documentation), which LLVM's
llvm/lib/Target/AArch64/AArch64Processors.td repeats; which CPU a board has is on the page given with it.
"""

from __future__ import annotations

from dataclasses import dataclass

NEON, DOTPROD, I8MM = "arm-neon", "arm-dotprod", "arm-i8mm"

# CPU, as LLVM names it: the target with what it has.
CPUS = {
    "cortex-a35": NEON,
    "cortex-a53": NEON,
    "cortex-a55": DOTPROD,
    "cortex-a57": NEON,
    "cortex-a72": NEON,
    "cortex-a73": NEON,
    "cortex-a75": DOTPROD,
    "cortex-a76": DOTPROD,
    "cortex-a77": DOTPROD,
    "cortex-a78": DOTPROD,
    "cortex-a78ae": DOTPROD,
    "cortex-a510": I8MM,
    "cortex-a710": I8MM,
    "cortex-a715": I8MM,
    "cortex-x1": DOTPROD,
    "neoverse-n1": DOTPROD,
    "neoverse-n2": I8MM,
    "neoverse-v1": I8MM,
    "neoverse-v2": I8MM,
    "carmel": NEON,
}


@dataclass(frozen=True)
class Board:
    """A board or a machine of a cloud.

    cpu: one of CPUS; of several kinds of cores the fast ones. source: where its maker says so.
    """

    name: str
    what: str
    cpu: str
    source: str


BOARDS = (
    Board("raspberrypi3", "Raspberry Pi 3, BCM2837", "cortex-a53", "raspberrypi.com/documentation/computers"),
    Board("raspberrypi4", "Raspberry Pi 4, BCM2711", "cortex-a72", "raspberrypi.com/documentation/computers"),
    Board("raspberrypi5", "Raspberry Pi 5, BCM2712", "cortex-a76", "raspberrypi.com/documentation/computers"),
    Board(
        "raspberrypi-zero2",
        "Raspberry Pi Zero 2 W, RP3A0",
        "cortex-a53",
        "raspberrypi.com/products",
    ),
    Board("jetson-nano", "NVIDIA Jetson Nano, Tegra X1", "cortex-a57", "developer.nvidia.com/embedded/jetson-nano"),
    Board("jetson-tx2", "NVIDIA Jetson TX2, Tegra X2", "cortex-a57", "developer.nvidia.com/embedded/jetson-tx2"),
    Board("jetson-xavier", "NVIDIA Jetson Xavier", "carmel", "developer.nvidia.com/embedded/jetson-agx-xavier"),
    Board("jetson-orin", "NVIDIA Jetson Orin", "cortex-a78ae", "developer.nvidia.com/embedded/jetson-orin"),
    Board("imx8m", "NXP i.MX 8M, Mini, Nano and Plus", "cortex-a53", "nxp.com/products/i.MX8M"),
    Board("coral-dev-board", "Coral Dev Board, i.MX 8M", "cortex-a53", "coral.ai/products/dev-board"),
    Board("kria-kv260", "AMD Kria KV260, Zynq UltraScale+", "cortex-a53", "amd.com/products/system-on-modules/kria"),
    Board("rk3399", "Rockchip RK3399 boards, as ROCKPro64", "cortex-a72", "pine64.org/devices/rockpro64"),
    Board("rk3588", "Rockchip RK3588 boards, as ROCK 5B", "cortex-a76", "radxa.com/products/rock5/5b"),
    Board("odroid-n2", "ODROID-N2, Amlogic S922X", "cortex-a73", "wiki.odroid.com/odroid-n2/hardware"),
    Board("graviton2", "AWS Graviton2", "neoverse-n1", "github.com/aws/aws-graviton-getting-started"),
    Board("graviton3", "AWS Graviton3", "neoverse-v1", "github.com/aws/aws-graviton-getting-started"),
    Board("graviton4", "AWS Graviton4", "neoverse-v2", "github.com/aws/aws-graviton-getting-started"),
    Board("ampere-altra", "Ampere Altra", "neoverse-n1", "amperecomputing.com/products/processors/ampere-altra"),
)
