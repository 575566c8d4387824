"""How torchvision evaluated each of its ImageNet weights, as data: torchvision is optional here.

Source: torchvision 0.28, the transforms of every weights enum of torchvision.models and of its quantization.
"""

from __future__ import annotations

from typing import Any

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
_PREFIX = "IMAGENET1K_"

# (resize, crop, interpolation): weights, as MODEL/NAME without the prefix of all names.
_SIZES = {
    (256, 224, "bilinear"): (
        "alexnet/V1 densenet121/V1 densenet161/V1 densenet169/V1 densenet201/V1 googlenet/FBGEMM_V1 googlenet/V1 "
        "mnasnet0_5/V1 mnasnet1_0/V1 mobilenet_v2/QNNPACK_V1 mobilenet_v2/V1 mobilenet_v3_large/QNNPACK_V1 "
        "mobilenet_v3_large/V1 mobilenet_v3_small/V1 regnet_x_16gf/V1 regnet_x_1_6gf/V1 regnet_x_32gf/V1 "
        "regnet_x_3_2gf/V1 regnet_x_400mf/V1 regnet_x_800mf/V1 regnet_x_8gf/V1 regnet_y_16gf/V1 regnet_y_1_6gf/V1 "
        "regnet_y_32gf/V1 regnet_y_3_2gf/V1 regnet_y_400mf/V1 regnet_y_800mf/V1 regnet_y_8gf/V1 resnet101/V1 "
        "resnet152/V1 resnet18/FBGEMM_V1 resnet18/V1 resnet34/V1 resnet50/FBGEMM_V1 resnet50/V1 "
        "resnext101_32x8d/FBGEMM_V1 resnext101_32x8d/V1 resnext50_32x4d/V1 shufflenet_v2_x0_5/FBGEMM_V1 "
        "shufflenet_v2_x0_5/V1 shufflenet_v2_x1_0/FBGEMM_V1 shufflenet_v2_x1_0/V1 squeezenet1_0/V1 "
        "squeezenet1_1/V1 vgg11/V1 vgg11_bn/V1 vgg13/V1 vgg13_bn/V1 vgg16/V1 vgg16_bn/V1 vgg19/V1 vgg19_bn/V1 "
        "vit_b_16/V1 vit_b_32/V1 vit_l_32/V1 wide_resnet101_2/V1 wide_resnet50_2/V1"
    ),
    (232, 224, "bilinear"): (
        "convnext_base/V1 convnext_large/V1 mnasnet0_75/V1 mnasnet1_3/V1 mobilenet_v2/V2 mobilenet_v3_large/V2 "
        "regnet_x_16gf/V2 regnet_x_1_6gf/V2 regnet_x_32gf/V2 regnet_x_3_2gf/V2 regnet_x_400mf/V2 "
        "regnet_x_800mf/V2 regnet_x_8gf/V2 regnet_y_16gf/V2 regnet_y_1_6gf/V2 regnet_y_32gf/V2 regnet_y_3_2gf/V2 "
        "regnet_y_400mf/V2 regnet_y_800mf/V2 regnet_y_8gf/V2 resnet101/V2 resnet152/V2 resnet50/FBGEMM_V2 "
        "resnet50/V2 resnext101_32x8d/FBGEMM_V2 resnext101_32x8d/V2 resnext101_64x4d/FBGEMM_V1 "
        "resnext101_64x4d/V1 resnext50_32x4d/V2 shufflenet_v2_x1_5/FBGEMM_V1 shufflenet_v2_x1_5/V1 "
        "shufflenet_v2_x2_0/FBGEMM_V1 shufflenet_v2_x2_0/V1 wide_resnet101_2/V2 wide_resnet50_2/V2"
    ),
    (230, 224, "bilinear"): "convnext_small/V1",
    (236, 224, "bilinear"): "convnext_tiny/V1",
    (256, 224, "bicubic"): "efficientnet_b0/V1",
    (256, 240, "bicubic"): "efficientnet_b1/V1",
    (255, 240, "bilinear"): "efficientnet_b1/V2",
    (288, 288, "bicubic"): "efficientnet_b2/V1",
    (320, 300, "bicubic"): "efficientnet_b3/V1",
    (384, 380, "bicubic"): "efficientnet_b4/V1",
    (456, 456, "bicubic"): "efficientnet_b5/V1",
    (528, 528, "bicubic"): "efficientnet_b6/V1",
    (600, 600, "bicubic"): "efficientnet_b7/V1",
    (480, 480, "bilinear"): "efficientnet_v2_m/V1",
    (384, 384, "bilinear"): "efficientnet_v2_s/V1",
    (342, 299, "bilinear"): "inception_v3/FBGEMM_V1 inception_v3/V1",
    (224, 224, "bicubic"): (
        "maxvit_t/V1 regnet_y_128gf/SWAG_LINEAR_V1 regnet_y_16gf/SWAG_LINEAR_V1 regnet_y_32gf/SWAG_LINEAR_V1 "
        "vit_b_16/SWAG_LINEAR_V1 vit_h_14/SWAG_LINEAR_V1 vit_l_16/SWAG_LINEAR_V1"
    ),
    (
        384,
        384,
        "bicubic",
    ): "regnet_y_128gf/SWAG_E2E_V1 regnet_y_16gf/SWAG_E2E_V1 regnet_y_32gf/SWAG_E2E_V1 vit_b_16/SWAG_E2E_V1",
    (238, 224, "bicubic"): "swin_b/V1",
    (246, 224, "bicubic"): "swin_s/V1",
    (232, 224, "bicubic"): "swin_t/V1",
    (272, 256, "bicubic"): "swin_v2_b/V1",
    (260, 256, "bicubic"): "swin_v2_s/V1 swin_v2_t/V1",
    (518, 518, "bicubic"): "vit_h_14/SWAG_E2E_V1",
    (242, 224, "bilinear"): "vit_l_16/V1",
    (512, 512, "bicubic"): "vit_l_16/SWAG_E2E_V1",
}

# MODEL/WEIGHTS: the fields of a Preprocessing.
PRESETS: dict[str, dict[str, Any]] = {
    name.replace("/", f"/{_PREFIX}"): {"resize": resize, "crop": crop, "interpolation": interpolation}
    for (resize, crop, interpolation), names in _SIZES.items()
    for name in names.split()
} | {
    "efficientnet_v2_l/IMAGENET1K_V1": {
        "resize": 480,
        "crop": 480,
        "interpolation": "bicubic",
        "mean": (0.5, 0.5, 0.5),
        "std": (0.5, 0.5, 0.5),
    },
    # Weights of another project: the mean of 0 to 255 is taken away, nothing divided.
    "vgg16/IMAGENET1K_FEATURES": {
        "resize": 256,
        "crop": 224,
        "mean": (0.48235, 0.45882, 0.40784),
        "std": (1 / 255, 1 / 255, 1 / 255),
    },
}
