"""How weights are published that are not on the hub in a layout of transformers or timm.

Each layout was written down from its authors' code; see ``docs/how-to/models.md`` for the sources.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    import torch

State = Mapping[str, "torch.Tensor"]

IMAGENET: Final = {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}
_EVA_X_MEAN, _EVA_X_STD = 0.49185243, 0.28509309


@dataclass(frozen=True, kw_only=True)
class PublishedLayout:
    """A published checkpoint, and the network that its weights are converted for.

    Attributes:
        architecture: Name of the network in timm; "dinov2_with_registers" for the network of that
            type in transformers.
        arguments: Arguments of the network.
        preprocessing: Entries of timm's ``pretrained_cfg``; or the image processor's.
        entry: The entry of the file that holds the weights, where there are several.
        rename: Returns the weights of the network with the names that its library knows.
    """

    architecture: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    preprocessing: Mapping[str, Any]
    entry: str | None = None
    rename: Callable[[State], dict[str, "torch.Tensor"]] = dict


def _without(*prefixes: str) -> Callable[[State], dict[str, "torch.Tensor"]]:
    """Return a function that drops keys by their first letters, after ``module.``."""

    def rename(state: State) -> dict[str, "torch.Tensor"]:
        named = {key.removeprefix("module."): tensor for key, tensor in state.items()}
        return {key: tensor for key, tensor in named.items() if not key.startswith(prefixes)}

    return rename


def _med_image_insight(state: State) -> dict[str, "torch.Tensor"]:
    """Take the image tower, and name it as that of Florence-2, which timm knows."""
    return {
        key.replace("image_encoder.", "vision_tower.").replace(".norms.", ".head.norm."): tensor
        for key, tensor in state.items()
        if key.startswith("image_encoder.")
    }


_DINOV2_RENAMES: Final = (
    (r"^(cls_token|mask_token|register_tokens)$", r"embeddings.\1"),
    (r"^pos_embed$", "embeddings.position_embeddings"),
    (r"^patch_embed\.proj\.", "embeddings.patch_embeddings.projection."),
    (r"^norm\.", "layernorm."),
    (r"^blocks\.(?:\d+\.)?(\d+)\.", r"encoder.layer.\1."),  # in chunks where it was sharded
    (r"\.ls([12])\.gamma$", r".layer_scale\1.lambda1"),
    (r"\.attn\.proj\.", ".attention.output.dense."),
    (r"\.mlp\.w12\.", ".mlp.weights_in."),
    (r"\.mlp\.w3\.", ".mlp.weights_out."),
)


def _dinov2(state: State) -> dict[str, "torch.Tensor"]:
    """Name the weights of DINOv2's own code as transformers does."""
    renamed = {}
    for key, tensor in state.items():
        key = key.removeprefix("module.").removeprefix("backbone.")
        if key.startswith(("dino_head.", "ibot_head.")):
            continue
        for pattern, name in _DINOV2_RENAMES:
            key = re.sub(pattern, name, key)
        if ".attn.qkv." in key:
            for part, rows in zip(("query", "key", "value"), tensor.chunk(3), strict=True):
                renamed[key.replace(".attn.qkv.", f".attention.attention.{part}.")] = rows
        else:
            renamed[key] = tensor
    return renamed


def _eva_x(size: str, **arguments: Any) -> PublishedLayout:
    return PublishedLayout(
        architecture=f"eva02_{size}_patch14_224",
        arguments={"patch_size": 16, "ref_feat_shape": [14, 14], **arguments},
        preprocessing={
            "input_size": [3, 224, 224],
            "mean": [_EVA_X_MEAN] * 3,
            "std": [_EVA_X_STD] * 3,
            "interpolation": "bicubic",
            "crop_pct": 224 / 256,
        },
    )


XRV_WEIGHTS: Final = ("all", "chex", "mimic_ch", "mimic_nb", "nih", "pc", "rsna")
"""The weights of torchxrayvision's DenseNet, as it names them."""

_XRV = PublishedLayout(
    architecture="densenet121",
    # Gray values from -1024 to 1024: (2 * value / 255 - 1) * 1024.
    preprocessing={
        "input_size": [1, 224, 224],
        "mean": [0.5],
        "std": [1 / 2048],
        "interpolation": "bilinear",
        "crop_pct": 1.0,
    },
    arguments={"in_chans": 1},
    rename=_without("classifier.", "op_threshs"),
)

LAYOUTS: Mapping[str, PublishedLayout] = MappingProxyType(
    {
        "ark-plus": PublishedLayout(
            architecture="swin_large_patch4_window12_384",
            arguments={"img_size": 768},
            preprocessing={
                **IMAGENET,
                "input_size": [3, 768, 768],
                "interpolation": "bicubic",
                "crop_pct": 1.0,
                "crop_mode": "squash",
            },
            entry="teacher",
            rename=_without("omni_heads.", "projector.", "head."),
        ),
        "chexfound": PublishedLayout(
            architecture="dinov2_with_registers",
            arguments={
                "hidden_size": 1024,
                "num_hidden_layers": 24,
                "num_attention_heads": 16,
                "patch_size": 16,
                "image_size": 512,
                "use_swiglu_ffn": True,
                "num_register_tokens": 4,
            },
            preprocessing={
                "image_processor_type": "BitImageProcessor",
                "do_convert_rgb": True,
                "do_resize": True,
                "size": {"shortest_edge": 512},
                "resample": 3,
                "do_center_crop": True,
                "crop_size": {"height": 512, "width": 512},
                "do_rescale": True,
                "do_normalize": True,
                "image_mean": IMAGENET["mean"],
                "image_std": IMAGENET["std"],
            },
            entry="teacher",
            rename=_dinov2,
        ),
        "eva-x-tiny": _eva_x("tiny"),
        "eva-x-small": _eva_x("small"),
        "eva-x-base": _eva_x("base"),
        "medimageinsight": PublishedLayout(
            architecture="davit_huge_fl",
            preprocessing={
                **IMAGENET,
                "input_size": [3, 480, 480],
                "interpolation": "bicubic",
                "crop_pct": 1.0,
                "crop_mode": "squash",
            },
            rename=_med_image_insight,
        ),
        **{f"densenet121-res224-{weights}": _XRV for weights in XRV_WEIGHTS},
    }
)
"""The layouts by the name of their encoder."""
