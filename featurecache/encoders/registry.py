"""The registered encoders: what each is, where it comes from, under which terms."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

Family = Literal["dual", "vision", "text", "pair", "medclip", "open_clip"]


@dataclass(frozen=True, kw_only=True)
class EncoderSpec:
    """One registered encoder, described without loading anything.

    Attributes:
        name: the registry name, as given to ``--model``.
        family: which adapter runs it. ``dual``: CLIP- and SigLIP-shaped; ``vision`` and ``text``:
            one tower; ``pair``: the two towers of other registered encoders.
        hub_ids: the Hugging Face repositories it comes from; empty when it is not on the hub.
        parts: for a pair, the registry names of its vision and its text encoder; else empty.
        dim: length of an embedding. For listings: the checkpoint's own config decides.
        pixels: side of the square that the network sees; None without a vision tower. For
            listings: the checkpoint's own image processor decides.
        aligned: images and texts share one space, so that zero-shot scores mean something.
        embedded: it ships with the package, as ``encoders/<name>/``.
        gated: the hub asks users to accept terms before the download.
        extra: the pip extra that it needs, or None.
        license: of the weights.
        exposed_to: data sets (names in the data set registry) that its training may have seen, so
            that scores on them are not those of unseen films.
        note: what a user should know before trusting a number.
    """

    name: str
    family: Family
    hub_ids: tuple[str, ...]
    parts: tuple[str, ...]
    dim: int
    pixels: int | None
    aligned: bool
    embedded: bool
    gated: bool
    extra: str | None
    license: str
    exposed_to: tuple[str, ...]
    note: str


def _dual(
    name: str,
    hub_id: str,
    *,
    dim: int,
    pixels: int,
    license: str,
    note: str,
    gated: bool = False,
    exposed_to: tuple[str, ...] = (),
) -> EncoderSpec:
    return EncoderSpec(
        name=name,
        family="dual",
        hub_ids=(hub_id,),
        parts=(),
        dim=dim,
        pixels=pixels,
        aligned=True,
        embedded=False,
        gated=gated,
        extra=None,
        license=license,
        exposed_to=exposed_to,
        note=note,
    )


_XRAY_NOTE = "possible NIH exposure: its training corpus includes ChestX-ray14"

_ALL = (
    EncoderSpec(
        name="tiny",
        family="dual",
        hub_ids=(),
        parts=(),
        dim=128,
        pixels=128,
        aligned=True,
        embedded=True,
        gated=False,
        extra=None,
        license="Apache-2.0",
        exposed_to=(),
        note="ours, 1.2 million weights, for trying things out; see encoders/tiny/README.md",
    ),
    _dual(
        "clip",
        "openai/clip-vit-base-patch32",
        dim=512,
        pixels=224,
        license="MIT",
        note="general images; centre crop cuts non-square films",
    ),
    _dual(
        "pubmedclip",
        "flaviagiammarino/pubmed-clip-vit-base-patch32",
        dim=512,
        pixels=224,
        license="MIT",
        note="CLIP fine-tuned on figures of open-access papers (ROCO)",
    ),
    _dual(
        "xraysiglip",
        "StanfordAIMI/XraySigLIP__vit-l-16-siglip-384__webli",
        dim=1024,
        pixels=512,
        license="CC-BY-NC-4.0",
        exposed_to=("nih",),
        note=_XRAY_NOTE,
    ),
    _dual(
        "xraysiglip-b",
        "StanfordAIMI/XraySigLIP__vit-b-16-siglip-512__webli",
        dim=768,
        pixels=512,
        license="CC-BY-NC-4.0",
        exposed_to=("nih",),
        note=_XRAY_NOTE,
    ),
    _dual(
        "xrayclip",
        "StanfordAIMI/XrayCLIP__vit-l-14__laion2b-s32b-b82k",
        dim=768,
        pixels=224,
        license="CC-BY-NC-4.0",
        exposed_to=("nih",),
        note=_XRAY_NOTE,
    ),
    _dual(
        "siglip2",
        "google/siglip2-base-patch16-224",
        dim=768,
        pixels=224,
        license="Apache-2.0",
        note="general images",
    ),
    _dual(
        "medsiglip",
        "google/medsiglip-448",
        dim=1152,
        pixels=448,
        license="Health AI Developer Foundations terms",
        note="gated: accept the terms on its hub page first",
        gated=True,
    ),
    EncoderSpec(
        name="medclip",
        family="medclip",
        hub_ids=(),
        parts=(),
        dim=512,
        pixels=224,
        aligned=True,
        embedded=False,
        gated=False,
        extra=None,
        license="MIT",
        exposed_to=(),
        note="MedCLIP-ViT; published prompts were drawn unseeded, so its logits do not repeat",
    ),
    EncoderSpec(
        name="rad-dino",
        family="vision",
        hub_ids=("microsoft/rad-dino",),
        parts=(),
        dim=768,
        pixels=518,
        aligned=False,
        embedded=False,
        gated=False,
        extra=None,
        license="MIT (MSRLA in older revisions)",
        exposed_to=("nih",),
        note="images only; possible NIH exposure: pre-trained on ChestX-ray14 among others",
    ),
    EncoderSpec(
        name="dinov2-small",
        family="vision",
        hub_ids=("facebook/dinov2-small",),
        parts=(),
        dim=384,
        pixels=224,
        aligned=False,
        embedded=False,
        gated=False,
        extra=None,
        license="Apache-2.0",
        exposed_to=(),
        note="images only; general images",
    ),
    EncoderSpec(
        name="minilm",
        family="text",
        hub_ids=("sentence-transformers/all-MiniLM-L6-v2",),
        parts=(),
        dim=384,
        pixels=None,
        aligned=False,
        embedded=False,
        gated=False,
        extra=None,
        license="Apache-2.0",
        exposed_to=(),
        note="texts only; general English",
    ),
    EncoderSpec(
        name="dinov2-minilm",
        family="pair",
        hub_ids=("facebook/dinov2-small", "sentence-transformers/all-MiniLM-L6-v2"),
        parts=("dinov2-small", "minilm"),
        dim=384,
        pixels=224,
        aligned=False,
        embedded=False,
        gated=False,
        extra=None,
        license="Apache-2.0",
        exposed_to=(),
        note="two unaligned encoders: heads work, zero-shot and retrieval by text do not",
    ),
    EncoderSpec(
        name="biomedclip",
        family="open_clip",
        hub_ids=("microsoft/BiomedCLIP-PubMedBERT_256-vit_base_patch16_224",),
        parts=(),
        dim=512,
        pixels=224,
        aligned=True,
        embedded=False,
        gated=False,
        extra="open-clip",
        license="MIT",
        exposed_to=(),
        note="figures of PubMed Central papers; runs through open_clip",
    ),
)

SPECS: Mapping[str, EncoderSpec] = MappingProxyType({spec.name: spec for spec in _ALL})
"""Every registered encoder by name; further ones load as ``hf:ORG/NAME`` or from a folder."""


def exposed_to(model: str) -> tuple[str, ...]:
    """The data sets that a model's published training may have seen; none where nothing is known.

    Args:
        model: registry name, or ``hf:ID`` of a registered encoder.
    """
    hub_id = model.removeprefix("hf:").partition("@")[0]
    found = (s.exposed_to for s in SPECS.values() if model == s.name or hub_id in s.hub_ids)
    return next(found, ())
