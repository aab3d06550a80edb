"""Registry of the data sets that can be loaded by name."""

import inspect
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from importlib import import_module
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal, cast

from featurecache.errors import DatasetError, UnknownNameError, UsageError
from featurecache.label_cells import LabelPolicy
from featurecache.plugins import load_entry_points
from featurecache.progress import Progress

if TYPE_CHECKING:
    from featurecache.datasets.dataset import Dataset

Loader = Callable[..., "Dataset"]
"""Called with the root and keyword options."""

TermsRead = Literal["source", "second hand", "not read"]


@dataclass(frozen=True, kw_only=True)
class DatasetSpec:
    """A data set that can be loaded by name.

    Attributes:
        name: Name that it is loaded by.
        description: One line for people.
        terms: License or terms of use.
        terms_url: Page that states them; "" for one's own data.
        may_share: Whether they allow giving others what is computed from the images, such as
            embeddings, as we understand them; None if they do not say, or are one's own.
        terms_read: How the terms are known: from their "source", "second hand" from those who
            quote or name them, or "not read", so that ``may_share`` is assumed to be false.
        loader: The loader, or "module:function", so that listing data sets imports nothing.
        lister: Instead of a loader: "module:function" that reads the tables of a release into a
            ``Listing``, which has the options that all releases share.
        reads_file: Whether the root may be a file.
        reads_any_folder: Whether any folder will do as the root; for others, it may also be in a
            folder of the data set's name in the root.
        recognizer: "module:function" that tells whether a folder has the layout of the data set;
            "" if its layout is not distinctive.
        root_finder: "module:function" that finds or makes the root of a data set that needs no
            download; "" for all others.
        policy: What the authors of the data set count uncertain and blank labels as; None leaves
            it to the loader.
    """

    name: str
    description: str
    terms: str
    terms_url: str = ""
    may_share: bool | None = None
    terms_read: TermsRead = "source"
    loader: str | Loader = ""
    lister: str = ""
    reads_file: bool = False
    reads_any_folder: bool = False
    recognizer: str = ""
    root_finder: str = ""
    policy: LabelPolicy | None = None

    def load(self, root: Path, options: Mapping[str, Any]) -> "Dataset":
        """Call the loader, or list the images of the release and load them.

        Raises:
            DatasetError: If the loader returns something else than a data set.
        """
        from featurecache.datasets.dataset import Dataset

        if self.lister:
            lister = _resolve(self.lister)
            own = {name: options[name] for name in options if name in _options(lister)}
            shared = {name: options[name] for name in options if name not in own}
            dataset = lister(root, **own).dataset(self.name, root, self.policy, **shared)
        else:
            dataset = _resolve(self.loader)(root, **options)
        if not isinstance(dataset, Dataset):
            raise DatasetError(
                f"the loader of the data set {self.name} returned a {type(dataset).__name__}, not "
                "a Dataset: correct the function that was registered"
            )
        return dataset if self.policy is None else dataset.with_policy(self.policy)

    def recognizes(self, folder: Path) -> bool:
        """Return whether a folder has the layout of this data set."""
        return bool(self.recognizer) and bool(_resolve(self.recognizer)(folder))

    def find_root(
        self, root: Path | None, options: Mapping[str, Any], progress: Progress | None
    ) -> Path:
        """Call the root finder."""
        return cast("Path", _resolve(self.root_finder)(root, options, progress))

    @property
    def options(self) -> dict[str, inspect.Parameter]:
        """Options of the loader, or of the lister and all releases, by name."""
        from featurecache.datasets.release import Listing

        if self.lister:
            return {**_options(_resolve(self.lister)), **_options(Listing.dataset)}
        return _options(_resolve(self.loader))

    def takes_path(self, option: str) -> bool:
        """Return whether an option of the loader is the path of a file or folder."""
        parameter = self.options.get(option)
        return parameter is not None and "PathLike" in str(parameter.annotation)

    def check_options(self, names: Iterable[str]) -> None:
        """Check that the loader takes these options.

        Raises:
            UsageError: If it does not take one of them.
        """
        valid = self.options
        if any(option.kind is option.VAR_KEYWORD for option in valid.values()):
            return
        for name in names:
            if name not in valid:
                near = get_close_matches(name, valid, n=1)
                hint = f"it takes {', '.join(valid) or 'none'}"
                if near:
                    hint = f"did you mean `{near[0]}`?"
                raise UsageError(f"the data set {self.name} takes no option `{name}`: {hint}")


def _options(function: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    """Return the parameters of a function that may be given by name, without its root."""
    parameters = list(inspect.signature(function).parameters.values())[1:]
    return {p.name: p for p in parameters if p.kind is not p.POSITIONAL_ONLY}


def _resolve(function: str | Callable[..., Any]) -> Callable[..., Any]:
    if callable(function):
        return function
    module, _, name = function.partition(":")
    return cast("Callable[..., Any]", getattr(import_module(module), name))


_BUILT_IN = (
    DatasetSpec(
        name="nih",
        description="NIH ChestX-ray14: 112,120 frontal images of 30,805 patients, 14 findings",
        terms="NIH Clinical Center: unrestricted use, name and link the source",
        terms_url="https://nihcc.app.box.com/v/ChestXray-NIHCC",
        may_share=True,
        lister="featurecache.datasets.nih:list_nih",
        recognizer="featurecache.datasets.nih:is_nih",
    ),
    DatasetSpec(
        name="nih-google",
        description="Google's labels of 4,376 images of nih, by radiologists, 4 findings",
        terms="those of nih for the images, Google's for the labels",
        terms_url="https://cloud.google.com/healthcare-api/docs/resources/public-datasets/"
        "nih-chest",
        may_share=False,
        terms_read="not read",
        lister="featurecache.datasets.nih_google:list_nih_google",
        recognizer="featurecache.datasets.nih_google:is_nih_google",
    ),
    DatasetSpec(
        name="kermany",
        description="UCSD pediatric pneumonia (Kermany 2018): 5,856 images, pneumonia or normal",
        terms="CC BY 4.0",
        terms_url="https://data.mendeley.com/datasets/rscbjbr9sj/2",
        may_share=True,
        terms_read="second hand",
        loader="featurecache.datasets.kermany:load_kermany",
        recognizer="featurecache.datasets.kermany:is_kermany",
    ),
    DatasetSpec(
        name="chexpert",
        description="CheXpert v1.0 and v1.0-small: 223,648 images of 64,740 patients, 14 labels",
        terms="Stanford University Dataset Research Use Agreement",
        terms_url="https://stanfordmlgroup.github.io/competitions/chexpert/",
        may_share=False,
        terms_read="second hand",
        lister="featurecache.datasets.chexpert:list_chexpert",
        recognizer="featurecache.datasets.chexpert:is_chexpert",
        policy=LabelPolicy(blank="negative"),
    ),
    DatasetSpec(
        name="chexpert-plus",
        description="CheXpert Plus: 223,462 images of chexpert, labels of their reports",
        terms="Stanford University Dataset Research Use Agreement",
        terms_url="https://aimi.stanford.edu/datasets/chexpert-plus",
        may_share=False,
        terms_read="second hand",
        lister="featurecache.datasets.chexpert_plus:list_chexpert_plus",
        recognizer="featurecache.datasets.chexpert_plus:is_chexpert_plus",
        policy=LabelPolicy(blank="negative"),
    ),
    DatasetSpec(
        name="padchest",
        description="PadChest: 160,861 images of 67,625 patients, 193 findings, in Spanish reports",
        terms="BIMCV: PadChest Dataset Research Use Agreement",
        terms_url="https://bimcv.cipf.es/bimcv-projects/padchest/"
        "padchest-dataset-research-use-agreement/",
        may_share=False,
        terms_read="second hand",
        lister="featurecache.datasets.padchest:list_padchest",
        recognizer="featurecache.datasets.padchest:is_padchest",
    ),
    DatasetSpec(
        name="padchest-gr",
        description="PadChest-GR: 4,555 images of padchest, labels of grounded reports",
        terms="BIMCV: by agreement",
        terms_url="https://bimcv.cipf.es/bimcv-projects/padchest-gr/",
        may_share=False,
        terms_read="not read",
        lister="featurecache.datasets.padchest_gr:list_padchest_gr",
        recognizer="featurecache.datasets.padchest_gr:is_padchest_gr",
    ),
    DatasetSpec(
        name="vindr-cxr",
        description="VinDr-CXR: 18,000 frontal images, read by three radiologists, 28 labels",
        terms="PhysioNet Credentialed Health Data License 1.5.0",
        terms_url="https://physionet.org/content/vindr-cxr/view-license/1.0.0/",
        may_share=False,
        lister="featurecache.datasets.vindr_cxr:list_vindr_cxr",
        recognizer="featurecache.datasets.vindr_cxr:is_vindr_cxr",
    ),
    DatasetSpec(
        name="vindr-pcxr",
        description="VinDr-PCXR: 9,125 images of children under ten, 15 diagnoses",
        terms="PhysioNet Restricted Health Data License 1.5.0",
        terms_url="https://physionet.org/content/vindr-pcxr/view-license/1.0.0/",
        may_share=False,
        terms_read="second hand",
        lister="featurecache.datasets.vindr_cxr:list_vindr_pcxr",
        recognizer="featurecache.datasets.vindr_cxr:is_vindr_pcxr",
    ),
    DatasetSpec(
        name="rsna",
        description="RSNA pneumonia challenge 2018: 26,684 images of nih, opacity or normal",
        terms="RSNA: any use, name the source",
        terms_url="https://www.rsna.org/education/ai-resources-and-training/ai-image-challenge/"
        "rsna-pneumonia-detection-challenge-2018",
        may_share=True,
        lister="featurecache.datasets.rsna:list_rsna",
        recognizer="featurecache.datasets.rsna:is_rsna",
    ),
    DatasetSpec(
        name="siim-acr",
        description="SIIM-ACR pneumothorax challenge 2019: 12,047 images of nih",
        terms="the rules of the competition",
        terms_url="https://www.kaggle.com/c/siim-acr-pneumothorax-segmentation/rules",
        may_share=False,
        terms_read="not read",
        lister="featurecache.datasets.siim_acr:list_siim_acr",
        recognizer="featurecache.datasets.siim_acr:is_siim_acr",
    ),
    DatasetSpec(
        name="chestx-det",
        description="ChestX-Det: 3,578 images of nih, 13 findings",
        terms="not stated; the images are those of nih",
        terms_url="https://github.com/Deepwise-AILab/ChestX-Det-Dataset",
        lister="featurecache.datasets.chestx_det:list_chestx_det",
        recognizer="featurecache.datasets.chestx_det:is_chestx_det",
    ),
    DatasetSpec(
        name="openi",
        description="Open-I (Indiana University): 7,470 images of 3,955 reports, MeSH headings",
        terms="CC BY-NC-ND 4.0",
        terms_url="https://openi.nlm.nih.gov/faq",
        may_share=False,
        terms_read="second hand",
        lister="featurecache.datasets.openi:list_openi",
        recognizer="featurecache.datasets.openi:is_openi",
    ),
    DatasetSpec(
        name="mimic-cxr-jpg",
        description="MIMIC-CXR(-JPG): 377,110 images of 65,379 patients, 14 labels of reports",
        terms="PhysioNet Credentialed Health Data License 1.5.0",
        terms_url="https://physionet.org/content/mimic-cxr-jpg/view-license/2.1.0/",
        may_share=False,
        lister="featurecache.datasets.mimic_cxr:list_mimic_cxr_jpg",
        recognizer="featurecache.datasets.mimic_cxr:is_mimic_cxr_jpg",
        policy=LabelPolicy(blank="negative"),
    ),
    DatasetSpec(
        name="brax",
        description="BRAX: 40,967 images of 19,351 patients, the 14 labels of CheXpert",
        terms="PhysioNet Credentialed Health Data License 1.5.0",
        terms_url="https://physionet.org/content/brax/view-license/1.1.0/",
        may_share=False,
        lister="featurecache.datasets.brax:list_brax",
        recognizer="featurecache.datasets.brax:is_brax",
        policy=LabelPolicy(blank="negative"),
    ),
    DatasetSpec(
        name="montgomery",
        description="Montgomery County: 138 frontal images, tuberculosis or normal",
        terms="NLM: available to the research community",
        terms_url="https://lhncbc.nlm.nih.gov/LHC-publications/pubs/"
        "TuberculosisChestXrayImageDataSets.html",
        lister="featurecache.datasets.tuberculosis:list_montgomery",
        recognizer="featurecache.datasets.tuberculosis:is_montgomery",
    ),
    DatasetSpec(
        name="shenzhen",
        description="Shenzhen: 662 frontal images, tuberculosis or normal",
        terms="NLM: available to the research community",
        terms_url="https://lhncbc.nlm.nih.gov/LHC-publications/pubs/"
        "TuberculosisChestXrayImageDataSets.html",
        lister="featurecache.datasets.tuberculosis:list_shenzhen",
        recognizer="featurecache.datasets.tuberculosis:is_shenzhen",
    ),
    DatasetSpec(
        name="covidx",
        description="COVIDx: images from several sources, COVID-19 or not",
        terms="those of its sources, such as BIMCV-COVID19+",
        terms_url="https://github.com/lindawangg/COVID-Net/blob/master/docs/COVIDx.md",
        may_share=False,
        terms_read="second hand",
        lister="featurecache.datasets.covidx:list_covidx",
        recognizer="featurecache.datasets.covidx:is_covidx",
    ),
    DatasetSpec(
        name="covid-radiography",
        description="COVID-19 Radiography Database: 21,165 images from several sources, 4 classes",
        terms="those of its sources, such as BIMCV-COVID19+",
        terms_url="https://www.kaggle.com/datasets/tawsifurrahman/covid19-radiography-database",
        may_share=False,
        terms_read="second hand",
        lister="featurecache.datasets.covid_radiography:list_covid_radiography",
        recognizer="featurecache.datasets.covid_radiography:is_covid_radiography",
    ),
    DatasetSpec(
        name="csv",
        description="any CSV, TSV, Excel or parquet file with one row per image",
        terms="those of your data",
        loader="featurecache.datasets.csv:load_csv",
        reads_file=True,
        reads_any_folder=True,
    ),
    DatasetSpec(
        name="folder",
        description="any folder with one folder of images per class",
        terms="those of your data",
        loader="featurecache.datasets.folder:load_folder",
        reads_any_folder=True,
        recognizer="featurecache.datasets.folder:has_classes",
    ),
    DatasetSpec(
        name="images",
        description="any folder of images, without labels",
        terms="those of your data",
        loader="featurecache.datasets.images:load_images",
        reads_any_folder=True,
    ),
    DatasetSpec(
        name="phantom",
        description="synthetic images with the 14 findings of nih, generated on first use",
        terms="Apache-2.0, generated",
        terms_url="https://www.apache.org/licenses/LICENSE-2.0",
        may_share=True,
        loader="featurecache.datasets.phantom.folder:load_phantom",
        recognizer="featurecache.datasets.phantom.folder:is_phantom",
        root_finder="featurecache.datasets.phantom.folder:phantom_root",
    ),
)

_specs = {spec.name: spec for spec in _BUILT_IN}

DATASETS: Mapping[str, DatasetSpec] = MappingProxyType(_specs)
"""All registered data sets, by name."""


def register_dataset(
    name: str, loader: Loader, *, description: str = "", terms: str = "those of your data"
) -> None:
    """Register a data set, so that it can be loaded by name.

    Registering the same function again replaces it, so a notebook cell can be run twice.

    Args:
        name: Name for ``load_dataset`` and for the command line.
        loader: Function of a folder or file (a ``Path``) and keyword options that returns a
            ``Dataset``.
        description: One line for lists of data sets.
        terms: License or terms of use.

    Raises:
        UsageError: If another data set has this name.

    Example:
        >>> import featurecache as fc
        >>> def load_clinic(root, *, seed=0):
        ...     dataset = fc.load_dataset("folder", root, seed=seed)
        ...     return dataset
        >>> fc.register_dataset("clinic", load_clinic, description="chest X-rays of our clinic")
        >>> dataset = fc.load_dataset("clinic", "~/clinic", seed=1)  # doctest: +SKIP
    """
    if (registered := _specs.get(name)) and not _same_function(registered.loader, loader):
        raise UsageError(f"there is already a data set {name!r}: choose another name")
    _specs[name] = DatasetSpec(
        name=name, description=description, terms=terms, loader=loader, reads_file=True
    )


def _same_function(registered: str | Loader, loader: Loader) -> bool:
    names = ("__module__", "__qualname__")
    return callable(registered) and all(
        getattr(registered, name, None) == getattr(loader, name, None) for name in names
    )


def get_dataset_spec(name: str) -> DatasetSpec:
    """Return a registered data set; installed plugins are loaded if the name is unknown.

    Args:
        name: Name of the data set.

    Raises:
        UnknownNameError: If there is none of this name.
    """
    if name not in DATASETS:
        load_entry_points()
    if name not in DATASETS:
        raise UnknownNameError("data set", name, DATASETS)
    return DATASETS[name]
