"""Seeded quantized models to measure on: torchvision's eight quantizable networks, and more of its classifiers by FX.

Nothing is downloaded. The weights are random, but the networks behave like trained ones where it matters here: every
layer keeps a spread of activations, so that rounding differences show instead of drowning in zeros or clipped codes.
"""

from __future__ import annotations

import importlib
import sys
from typing import Any, NamedTuple

import torch

from qtorch_relay.capture.engine import quantized_engine
from qtorch_relay.errors import QTorchRelayError

IMAGE_SIZES = {
    "resnet18": 224,
    "resnet50": 224,
    "resnext101_32x8d": 224,
    "mobilenet_v2": 224,
    "mobilenet_v3_large": 224,
    "googlenet": 224,
    "inception_v3": 299,
    "shufflenet_v2_x1_0": 224,
}
# Networks that torchvision has no quantizable form of: only FX quantizes them.
FX_IMAGE_SIZES = {
    "alexnet": 224,
    "vgg11_bn": 224,
    "squeezenet1_1": 224,
    "densenet121": 224,
    "mnasnet1_0": 224,
    "efficientnet_b0": 224,
    "regnet_y_400mf": 224,
    "mobilenet_v3_small": 224,
    "convnext_tiny": 224,
    "swin_t": 224,
    "vit_b_16": 224,
}
# Networks that are compared in float as well.
FLOAT_NETWORKS = (
    "alexnet",
    "vgg11_bn",
    "squeezenet1_1",
    "resnet18",
    "densenet121",
    "inception_v3",
    "googlenet",
    "mnasnet1_0",
    "mobilenet_v2",
    "mobilenet_v3_large",
    "shufflenet_v2_x1_0",
)
FLOWS = ("eager", "fx")
_HAS_AUX_LOGITS = ("googlenet", "inception_v3")
_defined: list[torch.library.Library] = []  # a Library takes its ops with it when it is collected


class ZooModel(NamedTuple):
    """A quantized model in eval mode and the shape of its input."""

    module: torch.nn.Module
    input_shape: tuple[int, int, int, int]


class UnknownModelError(QTorchRelayError):
    """The zoo has no such model or flow."""


def import_torchvision() -> Any:
    """Returns torchvision, also where its wheel does not match the build of torch.

    torchvision's CUDA wheel cannot load its C++ ops beside a CPU-only torch, and then fails to import, because it
    registers shapes of nms. The classifiers need none of those ops: nms and qnms are declared, without a kernel.
    """
    try:
        return importlib.import_module("torchvision")
    except RuntimeError as error:
        if "torchvision::nms" not in str(error):
            raise
    for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
        del sys.modules[name]
    library = torch.library.Library("torchvision", "DEF")
    for op in ("nms", "qnms"):
        library.define(f"{op}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    _defined.append(library)
    return importlib.import_module("torchvision")


def quantized_model(
    name: str,
    engine: str,
    flow: str = "eager",
    qat: bool = False,
    seed: int = 0,
    image_size: int | None = None,
    calibration_images: int = 2,
    transform_input: bool = False,
) -> ZooModel:
    """Returns a seeded quantized network: the same arguments give the same weights and quantization parameters.

    engine: its default qconfig is used, and the weights are packed for it.
    flow: "eager" (torchvision.models.quantization, fused) or "fx" (torchvision.models, prepare_fx, convert_fx).
    qat: quantization-aware training flow (fake quantization and batch norm folding) instead of calibration.
    image_size: height and width; None = the network's own (IMAGE_SIZES).
    transform_input: googlenet and inception_v3 only: renormalize the input in float before it is quantized.
    Raises: UnknownModelError if name or flow is unknown; EngineError if the engine is.
    """
    if flow not in FLOWS:
        raise UnknownModelError(f"flow {flow!r} is unknown; accepted are {', '.join(FLOWS)}")
    sizes = IMAGE_SIZES | FX_IMAGE_SIZES if flow == "fx" else IMAGE_SIZES
    if name not in sizes:
        raise UnknownModelError(f"model {name!r} is unknown; accepted are {', '.join(sizes)}")
    size = sizes[name] if image_size is None else image_size
    with quantized_engine(engine) as engine_name, torch.random.fork_rng(devices=()):
        torch.manual_seed(seed)
        module = _float_model(name, flow, transform_input)
        images = random_images(calibration_images, size, seed)
        if name in FX_IMAGE_SIZES:
            vary_parameters(module)
        randomize(module, images)
        quantize = _quantize_eager if flow == "eager" else _quantize_fx
        return ZooModel(quantize(module, engine_name, qat, images), (1, 3, size, size))


def float_model(name: str, engine: str, flow: str = "fx", seed: int = 0, image_size: int | None = None) -> ZooModel:
    """Returns the float network whose quantized form quantized_model returns for the same arguments."""
    sizes = IMAGE_SIZES | FX_IMAGE_SIZES
    if name not in sizes:
        raise UnknownModelError(f"model {name!r} is unknown; accepted are {', '.join(sizes)}")
    size = sizes[name] if image_size is None else image_size
    with quantized_engine(engine), torch.random.fork_rng(devices=()):
        torch.manual_seed(seed)
        module = _float_model(name, flow, transform_input=False)
        images = random_images(2, size, seed)
        if name in FX_IMAGE_SIZES:
            vary_parameters(module)
        randomize(module, images)
        return ZooModel(module.eval(), (1, 3, size, size))


class Pretrained(NamedTuple):
    """A network with its published weights; preprocessing: a name that find_preprocessing knows."""

    int8: torch.nn.Module
    floats: torch.nn.Module
    engine: str
    preprocessing: str


def pretrained(name: str) -> Pretrained:
    """Returns one of IMAGE_SIZES with torchvision's default quantized weights, which are downloaded.

    Raises: UnknownModelError if name is unknown.
    """
    if name not in IMAGE_SIZES:
        raise UnknownModelError(f"model {name!r} is unknown; accepted are {', '.join(IMAGE_SIZES)}")
    models = import_torchvision().models
    weights = models.get_model_weights(f"quantized_{name}").DEFAULT
    engine = weights.meta["backend"]
    with quantized_engine(engine):  # weights are packed for the engine that is set
        int8 = models.get_model(f"quantized_{name}", weights=weights, quantize=True)
    floats = models.get_model(name, weights=weights.meta["unquantized"])
    return Pretrained(int8.eval(), floats.eval(), engine, f"{name}/{weights.name}")


def random_images(count: int, size: int, seed: int = 0) -> torch.Tensor:
    """Returns normalized images [count, 3, size, size] with structure at every scale, as photographs have.

    White noise averages out in the first layers, and then every image gives the same logits.
    """
    generator = torch.Generator().manual_seed(seed)
    images = torch.zeros(count, 3, size, size)
    grid = 2
    while grid < size:
        coarse = torch.randn(count, 3, grid, grid, generator=generator)
        images += torch.nn.functional.interpolate(coarse, (size, size), mode="bilinear", align_corners=False)
        grid *= 2
    images += 0.3 * torch.randn(images.shape, generator=generator)
    return images / images.std()


def randomize(module: torch.nn.Module, images: torch.Tensor) -> None:
    """Gives batch norms random scales and shifts, and statistics near those of the images.

    Statistics that are random alone drift with depth: after 50 layers all codes are 0 or clipped.
    """
    norms = [m for m in module.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    for norm in norms:
        torch.nn.init.uniform_(norm.weight, 0.5, 1.5)
        torch.nn.init.normal_(norm.bias, 0.0, 0.3)
        norm.reset_running_stats()
    momenta = [norm.momentum for norm in norms]
    module.train()
    for norm in norms:
        norm.momentum = None  # the plain mean over all batches
    with torch.no_grad():
        module(torch.cat([images, images.flip(-1)]))  # a norm over 1x1 maps needs more than one image
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
            assert norm.running_mean is not None
            assert norm.running_var is not None
            norm.running_mean += 0.1 * norm.running_var.sqrt() * torch.randn_like(norm.running_mean)
            norm.running_var *= torch.empty_like(norm.running_var).uniform_(0.8, 1.25)
    module.eval()


def vary_parameters(module: torch.nn.Module) -> None:
    """Gives parameters random values where all their elements are alike, as norms, biases and new heads have them.

    Untouched, layer norms change nothing, ConvNeXt scales its blocks by 1e-6 and ViT's logits are all 0.
    """
    for name, parameter in module.named_parameters():
        first = parameter.detach().flatten()[0]
        if parameter.numel() == 1 or not bool((parameter == first).all()):
            continue
        if "layer_scale" in name or first == 1:
            torch.nn.init.uniform_(parameter, 0.5, 1.5)
        else:
            torch.nn.init.normal_(parameter, 0.0, 0.1)


def _float_model(name: str, flow: str, transform_input: bool) -> torch.nn.Module:
    models = import_torchvision().models
    options: dict[str, Any] = {"weights": None}
    if name in _HAS_AUX_LOGITS:
        options |= {"aux_logits": False, "init_weights": False, "transform_input": transform_input}
    elif transform_input:
        raise UnknownModelError(f"{name} has no transform_input; {' and '.join(_HAS_AUX_LOGITS)} have it")
    if flow == "eager":
        return getattr(models.quantization, name)(quantize=False, **options)
    return getattr(models, name)(**options)


def _quantize_eager(module: torch.nn.Module, engine: str, qat: bool, images: torch.Tensor) -> torch.nn.Module:
    from torch.ao import quantization

    module.train(qat)
    module.fuse_model(is_qat=qat)
    if qat:
        module.qconfig = quantization.get_default_qat_qconfig(engine)
        quantization.prepare_qat(module, inplace=True)
    else:
        module.qconfig = quantization.get_default_qconfig(engine)
        quantization.prepare(module, inplace=True)
    _observe(module, images)
    converted: torch.nn.Module = quantization.convert(module.eval(), inplace=True)
    return converted


def _quantize_fx(module: torch.nn.Module, engine: str, qat: bool, images: torch.Tensor) -> torch.nn.Module:
    from torch.ao import quantization
    from torch.ao.quantization import quantize_fx

    module.train(qat)
    if qat:
        mapping = quantization.get_default_qat_qconfig_mapping(engine)
        prepared = quantize_fx.prepare_qat_fx(module, mapping, (images,))
    else:
        mapping = quantization.get_default_qconfig_mapping(engine)
        prepared = quantize_fx.prepare_fx(module, mapping, (images,))
    _observe(prepared, images)
    converted: torch.nn.Module = quantize_fx.convert_fx(prepared.eval())
    return converted


def _observe(module: torch.nn.Module, images: torch.Tensor) -> None:
    with torch.no_grad():
        if module.training:
            module(torch.cat([images, images.flip(-1)]))
        for image in images.split(1):
            module.eval()(image)
