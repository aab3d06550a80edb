"""Folders laid out as releases of data sets: six studies of synthetic images each."""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pydicom
from PIL import Image
from pydicom.dataset import FileMetaDataset
from pydicom.uid import DigitalXRayImageStorageForPresentation, ExplicitVRLittleEndian

from featurecache.datasets.release import CHEXPERT_LABELS

N_STUDIES = 6

Draw = Callable[[str], None]
"""Writes the next image to a path below the root, in the format of the path's suffix."""


def drawer(root: Path, pictures: Iterator[np.ndarray]) -> Draw:
    def draw(path: str) -> None:
        file = root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        pixels = next(pictures)
        if file.suffix in (".dcm", ".dicom"):
            _write_dicom(file, pixels)
        else:
            Image.fromarray(pixels).save(file)

    return draw


def _write_dicom(file: Path, pixels: np.ndarray) -> None:
    dicom = pydicom.Dataset()
    dicom.file_meta = FileMetaDataset()
    dicom.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dicom.file_meta.MediaStorageSOPClassUID = DigitalXRayImageStorageForPresentation
    dicom.file_meta.MediaStorageSOPInstanceUID = "1.2.3"
    dicom.Rows, dicom.Columns = pixels.shape
    dicom.SamplesPerPixel, dicom.PhotometricInterpretation = 1, "MONOCHROME2"
    dicom.BitsAllocated, dicom.BitsStored, dicom.HighBit = 8, 8, 7
    dicom.PixelRepresentation = 0
    dicom.PixelData = pixels.tobytes()
    dicom.save_as(file, enforce_file_format=True)


def _write(file: Path, *lines: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("\n".join(lines) + "\n")


_CHEXPERT_CELLS = (",,1.0,,,,,,-1.0,,,,,1.0", "1.0,,,,,,,,,0.0,,,,", ",,0.0,,,,,,1.0,,-1.0,,,")
"""Cells of the 14 labels of three studies, in the order of CheXpert."""


def chexpert(root: Path, draw: Draw) -> None:
    header = ",".join(["Path", "Sex", "Age", "Frontal/Lateral", "AP/PA", *CHEXPERT_LABELS])
    lines: dict[str, list[str]] = {"train": [header], "valid": [header]}
    for study in range(N_STUDIES):
        folder = "train" if study < 4 else "valid"
        for view, columns in (("1_frontal", "Frontal,AP"), ("2_lateral", "Lateral,")):
            path = f"{folder}/patient{study + 1:05}/study1/view{view}.jpg"
            draw(path)
            lines[folder].append(
                f"CheXpert-v1.0-small/{path},Female,{60 + study},{columns},"
                f"{_CHEXPERT_CELLS[study % 3]}"
            )
    for folder, rows in lines.items():
        _write(root / f"{folder}.csv", *rows)


_PADCHEST = (
    ",ImageID,ImageDir,StudyDate_DICOM,StudyID,PatientID,PatientBirth,PatientSex_DICOM,"
    "ViewPosition_DICOM,Projection,MethodProjection,Pediatric,Modality_DICOM,Manufacturer_DICOM,"
    "PhotometricInterpretation_DICOM,PixelRepresentation_DICOM,PixelAspectRatio_DICOM,"
    "SpatialResolution_DICOM,BitsStored_DICOM,WindowCenter_DICOM,WindowWidth_DICOM,Rows_DICOM,"
    "Columns_DICOM,XRayTubeCurrent_DICOM,Exposure_DICOM,ExposureInuAs_DICOM,ExposureTime,"
    "RelativeXRayExposure_DICOM,ReportID,Report,MethodLabel,Labels,Localizations,"
    "LabelsLocalizationsBySentence,labelCUIS,LocalizationsCUIS"
)
_PADCHEST_LABELS = (
    "['normal']",
    "\"['pleural effusion', ' pseudonodule', '']\"",
    "\"['nodule', ' costophrenic angle blunting']\"",
    "['pleural effusion']",
    "['exclude']",
    "['subcutaneous emphysema']",
)


def padchest(root: Path, draw: Draw) -> None:
    lines = [_PADCHEST]
    for study, labels in enumerate(_PADCHEST_LABELS):
        method = "Physician" if study < 3 else "RNN_model"
        for image, (view, projection) in enumerate((("POSTEROANTERIOR", "PA"), ("LATERAL", "L"))):
            number = 2 * study + image
            name = f"1353758034155049{study}_{number:06}.png"
            draw(f"images/{study % 2}/{name}")
            lines.append(
                f"{number},{name},{study % 2},20150914,1353758034155049{study},31357{study},"
                f"1929.0,M,{view},{projection},Manual review of DICOM fields,No,CR,Maker,"
                "MONOCHROME2,0,None,None,12,2631,2065,64,64,400,10,10000,25,None,"
                f'{4991845 + study},"cambi pulmonar .\nsutil infiltr .",{method},{labels},[],'
                "\"[['normal'], ['normal']]\",[],[]"
            )
    _write(root / "PADCHEST_chest_x_ray_images_labels_160K_01.02.19.csv", *lines)


RELEASES: dict[str, Callable[[Path, Draw], None]] = {"chexpert": chexpert, "padchest": padchest}
