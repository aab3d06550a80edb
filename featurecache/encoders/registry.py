"""The registered encoders: what each is, where its weights come from, and under which license."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Literal, Protocol

from featurecache.errors import UsageError
from featurecache.plugins import load_entry_points

if TYPE_CHECKING:
    import os

    from featurecache.encoders.encoder import Encoder

Family = Literal["dual", "vision", "text", "pair", "medclip", "open_clip", "timm", "custom"]


@dataclass(frozen=True, kw_only=True)
class EncoderSpec:
    """One registered encoder; describing it loads nothing.

    Attributes:
        name: Registry name.
        dim: Length of an embedding. For listings: the checkpoint's own config decides.
        family: The class that runs it. ``dual``: CLIP- or SigLIP-shaped; ``vision`` and ``text``:
            one tower; ``timm``: a network of timm, images only; ``pair``: the images of one
            registered encoder and the texts of another; ``custom``: registered with a loader of its
            own.
        hub_ids: Hugging Face repositories of its weights; empty if they are not on the hub.
        download: How to get weights that ``convert_checkpoint`` has to convert, as in "from URL";
            empty for others.
        members: For a pair, the registry names of its vision and its text encoder; else empty.
        pixels: Side of the square that the network sees; None without a vision tower, or unknown.
            For listings: the checkpoint's own image processor decides.
        aligned: Whether images and texts share one embedding space.
        embedded: Whether the weights ship with the package, in ``encoders/<name>/``.
        gated: Whether the hub requires users to accept terms before the download.
        extra: The pip extra that it needs, or None.
        license: License of the weights.
        exposed_to: Data sets (names in the data set registry) that its training may have seen, so
            that metrics on them are not those of unseen images.
        note: What a user should know before trusting a metric.
    """

    name: str
    dim: int
    family: Family = "dual"
    hub_ids: tuple[str, ...] = ()
    download: str = ""
    members: tuple[str, ...] = ()
    pixels: int | None = None
    aligned: bool = False
    embedded: bool = False
    gated: bool = False
    extra: str | None = None
    license: str = ""
    exposed_to: tuple[str, ...] = ()
    note: str = ""


class EncoderLoader(Protocol):
    """A function that creates an encoder."""

    def __call__(
        self, *, device: str, precision: str, weights: "str | os.PathLike[str] | None"
    ) -> "Encoder":
        """Create the encoder.

        Args:
            device: ``cpu``, ``cuda`` or ``mps``.
            precision: ``fp32`` or ``bf16``.
            weights: The checkpoint that the user gave; None for the encoder's own.
        """


def _stanford_xray(name: str, hub_name: str, dim: int, pixels: int) -> EncoderSpec:
    return EncoderSpec(
        name=name,
        hub_ids=(f"StanfordAIMI/{hub_name}",),
        dim=dim,
        pixels=pixels,
        aligned=True,
        license="CC-BY-NC-4.0",
        exposed_to=("nih",),
        note="possible NIH exposure: its training corpus includes ChestX-ray14",
    )


def _xrv_densenet(weights: str, exposed_to: tuple[str, ...]) -> EncoderSpec:
    name = f"densenet121-res224-{weights}"
    # It is published as a pickled module, which only its own library can load.
    network = f"torchxrayvision.models.DenseNet(weights='{name}')"
    return EncoderSpec(
        name=name,
        family="timm",
        download=f"with torch.save({network}.state_dict(), FILE)",
        dim=1024,
        pixels=224,
        extra="timm",
        license="Apache-2.0",
        exposed_to=exposed_to,
        note="images only; torchxrayvision's classifier, trained on labels of these data sets",
    )


def _eva_x(size: str, dim: int) -> EncoderSpec:
    file = f"eva_x_{size}_patch16_merged520k_mim.pt"
    return EncoderSpec(
        name=f"eva-x-{size}",
        family="timm",
        download=f"from https://huggingface.co/MapleF/eva_x/resolve/main/{file}",
        dim=dim,
        pixels=224,
        extra="timm",
        license="MIT",
        exposed_to=("chexpert", "mimic-cxr-jpg", "nih"),
        note="images only; masked image modeling on 520,000 chest X-rays (arXiv 2405.05237)",
    )


def _cxformer(size: str, dim: int) -> EncoderSpec:
    return EncoderSpec(
        name=f"cxformer-{size}",
        family="vision",
        hub_ids=(f"m42-health/CXformer-{size}",),
        dim=dim,
        license="CC-BY-NC-4.0, research only",
        exposed_to=("brax", "chexpert", "mimic-cxr-jpg", "nih", "padchest"),
        note="images only; DINOv2 with registers, trained on the official training splits",
    )


_BUILT_IN = (
    EncoderSpec(
        name="tiny",
        dim=128,
        pixels=128,
        aligned=True,
        embedded=True,
        license="Apache-2.0",
        note="ours, 1.2 million weights, to try things out; trained on images of NIH and Kermany, "
        "and on phantoms of another seed than the default; see encoders/tiny/README.md",
    ),
    EncoderSpec(
        name="clip",
        hub_ids=("openai/clip-vit-base-patch32",),
        dim=512,
        pixels=224,
        aligned=True,
        license="MIT",
        note="general images; its center crop cuts images that are not square",
    ),
    EncoderSpec(
        name="pubmedclip",
        hub_ids=("flaviagiammarino/pubmed-clip-vit-base-patch32",),
        dim=512,
        pixels=224,
        aligned=True,
        license="MIT",
        note="CLIP fine-tuned on figures of open-access papers (ROCO)",
    ),
    _stanford_xray("xraysiglip", "XraySigLIP__vit-l-16-siglip-384__webli", 1024, 512),
    _stanford_xray("xraysiglip-b", "XraySigLIP__vit-b-16-siglip-512__webli", 768, 512),
    _stanford_xray("xrayclip", "XrayCLIP__vit-l-14__laion2b-s32b-b82k", 768, 224),
    EncoderSpec(
        name="siglip2",
        hub_ids=("google/siglip2-base-patch16-224",),
        dim=768,
        pixels=224,
        aligned=True,
        license="Apache-2.0",
        note="general images",
    ),
    EncoderSpec(
        name="medsiglip",
        hub_ids=("google/medsiglip-448",),
        dim=1152,
        pixels=448,
        aligned=True,
        gated=True,
        license="Health AI Developer Foundations terms",
        note="gated: accept the terms on its hub page first",
    ),
    EncoderSpec(
        name="medclip",
        family="medclip",
        dim=512,
        pixels=224,
        aligned=True,
        license="MIT",
        note="MedCLIP-ViT; published prompts were sampled unseeded, so its logits do not repeat",
    ),
    EncoderSpec(
        name="rad-dino",
        family="vision",
        hub_ids=("microsoft/rad-dino",),
        dim=768,
        pixels=518,
        license="MIT (MSRLA in older revisions)",
        exposed_to=("brax", "chexpert", "mimic-cxr-jpg", "nih", "padchest"),
        note="images only; possible NIH exposure: pretrained on ChestX-ray14 among others",
    ),
    _cxformer("small", 384),
    _cxformer("base", 768),
    EncoderSpec(
        name="chexfound",
        family="vision",
        download="from https://github.com/RPIDIAL/CheXFound",
        dim=1024,
        pixels=512,
        license="not stated",
        exposed_to=("brax", "chexpert", "mimic-cxr-jpg", "padchest"),
        note="images only; DINOv2 with registers; of its 12 data sets, 4 are known by name here",
    ),
    _eva_x("tiny", 192),
    _eva_x("small", 384),
    _eva_x("base", 768),
    EncoderSpec(
        name="ark-plus",
        family="timm",
        download="from https://github.com/jlianglab/Ark",
        dim=1536,
        pixels=768,
        extra="timm",
        license="ASU: academic and other non-commercial research",
        exposed_to=("chexpert", "mimic-cxr-jpg", "nih", "rsna", "shenzhen", "vindr-cxr"),
        note="images only; Ark+ Swin-L before its projector, trained on labels of these data sets",
    ),
    EncoderSpec(
        name="medimageinsight",
        family="timm",
        download="from https://huggingface.co/lion-ai/MedImageInsights",
        dim=2048,
        pixels=480,
        extra="timm",
        license="MIT",
        exposed_to=("chexpert", "mimic-cxr-jpg", "nih"),
        note="images only, before the projection; its training data are not listed by name",
    ),
    _xrv_densenet(
        "all",
        ("chexpert", "mimic-cxr-jpg", "nih", "nih-google", "openi", "padchest", "rsna"),
    ),
    _xrv_densenet("chex", ("chexpert",)),
    _xrv_densenet("mimic_ch", ("mimic-cxr-jpg",)),
    _xrv_densenet("mimic_nb", ("mimic-cxr-jpg",)),
    _xrv_densenet("nih", ("nih",)),
    _xrv_densenet("pc", ("padchest",)),
    _xrv_densenet("rsna", ("rsna",)),
    EncoderSpec(
        name="dinov2-small",
        family="vision",
        hub_ids=("facebook/dinov2-small",),
        dim=384,
        pixels=224,
        license="Apache-2.0",
        note="images only; general images; its crop drops 23 % of a square image (see resize)",
    ),
    EncoderSpec(
        name="dinov3-base",
        family="vision",
        hub_ids=("facebook/dinov3-vitb16-pretrain-lvd1689m",),
        dim=768,
        pixels=224,
        gated=True,
        license="DINOv3 License",
        note="images only; general images; gated: accept the terms on its hub page first",
    ),
    EncoderSpec(
        name="dinov3-convnext-base",
        family="vision",
        hub_ids=("facebook/dinov3-convnext-base-pretrain-lvd1689m",),
        dim=1024,
        pixels=224,
        gated=True,
        license="DINOv3 License",
        note="images only; general images; gated: accept the terms on its hub page first",
    ),
    EncoderSpec(
        name="ijepa-huge",
        family="vision",
        hub_ids=("facebook/ijepa_vith14_1k",),
        dim=1280,
        pixels=224,
        license="CC-BY-NC-4.0",
        note="images only; general images; the embedding is the mean of the patch tokens",
    ),
    EncoderSpec(
        name="vit-mae-base",
        family="vision",
        hub_ids=("facebook/vit-mae-base",),
        dim=768,
        pixels=224,
        license="Apache-2.0",
        note="images only; general images; a masked autoencoder, weak without fine-tuning",
    ),
    EncoderSpec(
        name="minilm",
        family="text",
        hub_ids=("sentence-transformers/all-MiniLM-L6-v2",),
        dim=384,
        license="Apache-2.0",
        note="texts only; general English",
    ),
    EncoderSpec(
        name="dinov2-minilm",
        family="pair",
        hub_ids=("facebook/dinov2-small", "sentence-transformers/all-MiniLM-L6-v2"),
        members=("dinov2-small", "minilm"),
        dim=384,
        pixels=224,
        license="Apache-2.0",
        note="two unaligned encoders: heads work, zero-shot and retrieval by text do not",
    ),
    EncoderSpec(
        name="biomedclip",
        family="open_clip",
        hub_ids=("microsoft/BiomedCLIP-PubMedBERT_256-vit_base_patch16_224",),
        dim=512,
        pixels=224,
        aligned=True,
        extra="open-clip",
        license="MIT",
        note="figures of PubMed Central papers; runs through open_clip",
    ),
)

_BUILT_IN_NAMES = frozenset(spec.name for spec in _BUILT_IN)
_encoders = {spec.name: spec for spec in _BUILT_IN}
_loaders: dict[str, EncoderLoader] = {}

ENCODERS: Mapping[str, EncoderSpec] = MappingProxyType(_encoders)
"""Every registered encoder by name. Others load as ``hf:ORG/NAME`` or from a folder."""


def register_encoder(
    name: str,
    loader: EncoderLoader | EncoderSpec,
    *,
    dim: int = 0,
    pixels: int | None = None,
    aligned: bool = False,
    license: str = "",
    exposed_to: tuple[str, ...] = (),
    note: str = "",
) -> None:
    """Make an encoder available by name, in Python and on the command line.

    Args:
        name: Name to load it by: letters, digits, ``.``, ``_`` and ``-``. Registering a name of
            yours again replaces it.
        loader: A function with the keyword arguments ``device``, ``precision`` and ``weights``
            that returns an ``Encoder``; or an ``EncoderSpec``, for weights on the Hugging Face hub
            in the shape of a supported family, which already holds what the other arguments say.
        dim: Length of an image embedding, for listings.
        pixels: Side of the square that the network sees, for listings.
        aligned: Whether images and texts share one embedding space, for listings.
        license: License of the weights.
        exposed_to: Data sets that its training may have seen, such as ``("nih",)``. Results on
            them carry a warning.
        note: What a user should know before trusting a metric.

    Raises:
        UsageError: The name is not allowed, or is that of a built-in encoder, or the loader is not
            a function.

    Example:
        >>> import numpy as np
        >>> import featurecache as fc
        >>> class MeanGray(fc.Encoder):
        ...     dim = 3
        ...     image_spec = {"mean gray": 1}
        ...     def preprocess(self, image):
        ...         return np.asarray(image.convert("RGB"), np.float32).transpose(2, 0, 1)
        ...     def embed_pixels(self, pixels):
        ...         return pixels.mean(axis=(2, 3))
        >>> def load_mean_gray(*, device, precision, weights):
        ...     return MeanGray(name="mean-gray")
        >>> fc.register_encoder("mean-gray", load_mean_gray, dim=3)
        >>> fc.load_encoder("mean-gray")
        MeanGray('mean-gray', dim=3, images, cpu, fp32)
    """
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name):
        raise UsageError(f"`name` is {name!r}: use letters, digits, '.', '_' and '-'")
    if name in _BUILT_IN_NAMES:
        raise UsageError(f"{name!r} is a built-in encoder: choose another `name`")
    if not isinstance(loader, EncoderSpec) and not callable(loader):
        raise UsageError(
            f"`loader` is {loader!r}: give a function of device, precision and weights that "
            "returns an Encoder, or an EncoderSpec"
        )
    if isinstance(loader, EncoderSpec):
        _encoders[name] = replace(loader, name=name)
        _loaders.pop(name, None)
        return
    _encoders[name] = EncoderSpec(
        name=name,
        family="custom",
        dim=dim,
        pixels=pixels,
        aligned=aligned,
        license=license,
        exposed_to=exposed_to,
        note=note,
    )
    _loaders[name] = loader


def find_encoder(name: str) -> EncoderSpec | None:
    """Return the registered encoder of a name, also one that an installed plugin registers."""
    if name not in _encoders:
        load_entry_points()
    return _encoders.get(name)


def custom_loader(name: str) -> EncoderLoader:
    """Return the loader that an encoder was registered with."""
    return _loaders[name]


def exposed_to(model: str) -> tuple[str, ...]:
    """Return the data sets that a model's published training may have seen.

    Args:
        model: Registry name, or ``hf:ID`` of a registered encoder.

    Returns:
        Names of data sets; empty if nothing is known.
    """
    hub_id = model.removeprefix("hf:").partition("@")[0]
    exposures = (
        spec.exposed_to
        for spec in _encoders.values()
        if model == spec.name or hub_id in spec.hub_ids
    )
    return next(exposures, ())
