"""Folders laid out as releases of data sets: six studies of synthetic images each."""

import gzip
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pandas as pd
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


def chexpert_plus(root: Path, draw: Draw) -> None:
    sections = (
        "report,section_narrative,section_clinical_history,section_history,section_comparison,"
        "section_technique,section_procedure_comments,section_findings,section_impression,"
        "section_end_of_impression,section_summary,section_accession_number"
    )
    lines = [
        "path_to_image,path_to_dcm,frontal_lateral,ap_pa,deid_patient_id,patient_report_date_order,"
        f"{sections},age,sex,race,ethnicity,interpreter_needed,insurance_type,recent_bmi,deceased,"
        "split"
    ]
    labels = []
    for study in range(N_STUDIES):
        split = "train" if study < 4 else "valid"
        for view, columns in (("1_frontal", "Frontal,AP"), ("2_lateral", "Lateral,")):
            stem = f"{split}/patient{study + 1:05}/study1/view{view}"
            draw(f"PNG/{stem}.png")
            text = '"NARRATIVE:\nHeart, large.\n"' + ",a" * 11
            lines.append(
                f"{stem}.jpg,{stem}.dcm,{columns},patient4214{study},1,{text},{60 + study}.0,"
                f"Female,White,Non-Hispanic,No,Private,,No,{split}"
            )
            cells = [float(x) if x else None for x in _CHEXPERT_CELLS[study % 3].split(",")]
            stated = dict(zip(CHEXPERT_LABELS, cells, strict=True))
            labels.append(json.dumps({"path_to_image": f"{stem}.jpg", **stated}))
    _write(root / "df_chexpert_plus_240401.csv", *lines)
    _write(root / "chexbert_labels" / "impression_fixed.json", *labels)


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


def padchest_gr(root: Path, draw: Draw) -> None:
    reports = []
    lines = ["StudyID,ImageID,PatientID,PatientSex_DICOM,sentence_en,label,label_group,split"]
    for study in range(N_STUDIES):
        number, image = f"1353758034155049{study}", f"1353758034155049{study}_{study:06}.png"
        draw(f"Padchest_GR_files/PadChest_GR/{image}")
        findings = [{"sentence_en": "The heart is normal.", "abnormal": False}]
        if study % 2:
            box = {"boxes": [[0.1, 0.5, 0.4, 0.9]], "extra_boxes": [], "locations": ["right"]}
            finding = {"labels": ["pleural effusion", "laminar atelectasis"], "abnormal": True}
            findings.append({"sentence_en": "Effusion.", **finding, **box, "progression": None})
        reports.append({"StudyID": number, "ImageID": image, "findings": findings})
        split = "train" if study < 3 else "validation" if study < 4 else "test"
        for label in ("pleural effusion", "laminar atelectasis") if study % 2 else ("Normal",):
            lines.append(f"{number},{image},31357{study},F,x,{label},{label},{split}")
    _write(root / "grounded_reports_20240819.json", json.dumps(reports))
    _write(root / "master_table.csv", *lines)


def nih_google(root: Path, draw: Draw) -> None:
    lines = [
        "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,"
        "View Position,OriginalImage[Width,Height],OriginalImagePixelSpacing[x,y],Fracture,"
        "Pneumothorax,Airspace opacity,Nodule or mass,Set Id"
    ]
    for study in range(N_STUDIES):
        image = f"0000000{study}_008.png"
        draw(f"images_001/images/{image}")
        lines.append(
            f"{image},Edema|Mass,8,{study},60,M,AP,3056,2544,0.139,0.139,NO,"
            f"{'YES' if study % 2 else 'NO'},YES,NO,{'val' if study < 3 else 'test'}"
        )
    with gzip.open(root / "google2019_nih-chest-xray-labels.csv.gz", "wt") as file:
        file.write("\n".join(lines) + "\n")


def chestx_det(root: Path, draw: Draw) -> None:
    annotations: dict[str, list[dict[str, object]]] = {"train": [], "test": []}
    for study in range(N_STUDIES):
        split = "train" if study < 4 else "test"
        draw(f"{split}_data/{split}/3634{study}.png")
        box, outline = [799, 666, 937, 761], [[799, 678], [801, 681], [805, 684]]
        n_boxes = 2 * (study % 2)
        annotations[split].append(
            {
                "file_name": f"3634{study}.png",
                "syms": ["Diffuse Nodule"] * n_boxes,
                "boxes": [box] * n_boxes,
                "polygons": [outline] * n_boxes,
            }
        )
    for split, entries in annotations.items():
        _write(root / f"ChestX_Det_{split}.json", json.dumps(entries))


def covid_radiography(root: Path, draw: Draw) -> None:
    for name in ("COVID", "Lung_Opacity", "Normal"):
        for number in (1, 2):
            draw(f"{name}/images/{name}-{number}.png")
            draw(f"{name}/masks/{name}-{number}.png")
        spelled = name.upper() if name == "Normal" else name
        pd.DataFrame(
            {
                "FILE NAME": [f"{spelled}-1", f"{spelled}-2"],
                "FORMAT": "PNG",
                "SIZE": "256*256",
                "URL": "https://example.org",
            }
        ).to_excel(root / f"{name}.metadata.xlsx", index=False)


def vindr_kaggle(root: Path, draw: Draw) -> None:
    lines = ["image_id,class_name,class_id,rad_id,x_min,y_min,x_max,y_max"]
    for study in range(N_STUDIES):
        image = f"50a418190bc3fb1ef1633bf9678929b{study}"
        draw(f"train/{image}.dicom")
        for reader in range(3):
            if reader < study % 4:
                lines += [f"{image},Cardiomegaly,3,R{reader + 8},691.0,1375.0,1653.0,1831.0"] * 2
            else:
                lines.append(f"{image},No finding,14,R{reader + 8},,,,")
    _write(root / "train.csv", *lines)


def vindr_physionet(root: Path, draw: Draw) -> None:
    for folder, other, studies in (
        ("train", "Other diseases", range(4)),
        ("test", "Other disease", range(4, N_STUDIES)),
    ):
        readers = 3 if folder == "train" else 1
        reader_column = "rad_id," if folder == "train" else ""
        lines = [f"image_id,{reader_column}Aortic enlargement,Cardiomegaly,{other},No finding"]
        for study in studies:
            image = f"000434271f63a053c4128a0ba6352c7{study}"
            draw(f"{folder}/{image}.dicom")
            for reader in range(readers):
                found = int(reader < study % 4) if folder == "train" else study % 2
                name = f"R{reader + 8}," if folder == "train" else ""
                lines.append(f"{image},{name}0,{found},0,{1 - found}")
        _write(root / "annotations" / f"image_labels_{folder}.csv", *lines)


def vindr_pcxr(root: Path, draw: Draw) -> None:
    for folder, studies in (("train", range(4)), ("test", range(4, N_STUDIES))):
        lines = ["image_id,rad_ID,No finding,Brocho-pneumonia,Bronchiolitis,Other disease"]
        for study in studies:
            image = f"05f10b8d4e9e0eae0d9d4a8b9b0c8f6{study}"
            draw(f"{folder}/{image}.dicom")
            lines.append(f"{image},R1,{(study + 1) % 2}.0,{study % 2}.0,0.0,0.0")
        _write(root / f"image_labels_{folder}.csv", *lines)


def rsna(root: Path, draw: Draw) -> None:
    labels = ["patientId,x,y,width,height,Target"]
    classes = ["patientId,class"]
    mapping = []
    for study in range(N_STUDIES):
        image = f"0004cfab-14fd-4e49-80ba-63a80b6bddd{study}"
        draw(f"stage_2_train_images/{image}.dcm")
        boxes = ["264.0,152.0,213.0,379.0,1"] * 2 if study % 2 else [",,,,0"]
        labels += [f"{image},{box}" for box in boxes]
        classes += [f"{image},{'Lung Opacity' if study % 2 else 'Normal'}"] * len(boxes)
        mapping.append({"img_id": f"0000000{study}_000.png", "subset_img_id": image})
    _write(root / "stage_2_train_labels.csv", *labels)
    _write(root / "stage_2_detailed_class_info.csv", *classes)
    _write(root / "pneumonia-challenge-dataset-mappings_2018.json", json.dumps(mapping))


def siim_acr(root: Path, draw: Draw) -> None:
    lines = ["ImageId, EncodedPixels"]
    for study in range(N_STUDIES):
        prefix = "1.2.276.0.7230010.3.1"
        image = f"{prefix}.4.8323329.690{study}.1517875201.850819"
        draw(f"dicom-images-train/{prefix}.2.{study}.1/{prefix}.3.{study}.2/{image}.dcm")
        lines += [f"{image},557374 2 1015 8 1009 14"] * 2 if study % 2 else [f"{image},-1"]
    _write(root / "train-rle.csv", *lines)


def openi_xml(root: Path, draw: Draw) -> None:
    for study in range(1, N_STUDIES + 1):
        names = [f"CXR{study}_{study}_IM-000{study}-{view}001" for view in (3, 4)]
        for name in names:
            draw(f"NLMCXR_png/{name}.png")
        major = "Cardiomegaly/mild" if study % 2 else "normal"
        images = "".join(f'<parentImage id="{name}"><figureId/></parentImage>' for name in names)
        _write(
            root / "ecgen-radiology" / f"{study}.xml",
            '<?xml version="1.0" encoding="utf-8"?>',
            f'<eCitation><uId id="CXR{study}"/><MeSH><major>{major}</major></MeSH>',
            f"{images}</eCitation>",
        )


def openi_kaggle(root: Path, draw: Draw) -> None:
    reports = ["uid,MeSH,Problems,image,indication,comparison,findings,impression"]
    projections = ["uid,filename,projection"]
    for study in range(1, N_STUDIES + 1):
        mesh = "Cardiomegaly/mild;Opacity/lung" if study % 2 else "normal"
        reports.append(f'{study},{mesh},x,Xray,,,"The heart, ""XXXX"".",')
        for view, projection in (("1001", "Frontal"), ("2001", "Lateral")):
            name = f"{study}_IM-000{study}-{view}.dcm.png"
            draw(f"images/images_normalized/{name}")
            projections.append(f"{study},{name},{projection}")
    _write(root / "indiana_reports.csv", *reports)
    _write(root / "indiana_projections.csv", *projections)


def mimic_cxr_jpg(root: Path, draw: Draw) -> None:
    labels = [",".join(["subject_id", "study_id", *sorted(CHEXPERT_LABELS)])]
    metadata = [
        "dicom_id,subject_id,study_id,PerformedProcedureStepDescription,ViewPosition,Rows,Columns,"
        "StudyDate,StudyTime,ProcedureCodeSequence_CodeMeaning,ViewCodeSequence_CodeMeaning,"
        "PatientOrientationCodeSequence_CodeMeaning"
    ]
    splits = ["dicom_id,study_id,subject_id,split"]
    for study in range(N_STUDIES):
        patient, number = f"1000003{study}", f"5041426{study}"
        split = "train" if study < 3 else "validate" if study < 4 else "test"
        atelectasis = ("1.0", "0.0", "-1.0", "1.0", "1.0", "0.0")[study]
        if study != 4:
            labels.append(f"{patient},{number},{atelectasis},1.0" + 12 * ",")
        for image, view in enumerate(("PA", "LATERAL")):
            name = f"02aa804e-bde0afdd-112c0b34-7bc16630-4e38401{2 * study + image:x}"
            draw(f"files/p10/p{patient}/s{number}/{name}.jpg")
            metadata.append(
                f'{name},{patient},{number},"CHEST (PA AND LAT)",{view},64,64,21800506,213014.531,'
                "CHEST (PA AND LAT),postero-anterior,Erect"
            )
            splits.append(f"{name},{number},{patient},{split}")
    for table, lines in (("chexpert", labels), ("metadata", metadata), ("split", splits)):
        with gzip.open(root / f"mimic-cxr-2.0.0-{table}.csv.gz", "wt") as file:
            file.write("\n".join(lines) + "\n")


def brax(root: Path, draw: Draw) -> None:
    lines = [
        ",DicomPath,PngPath,PatientID,PatientSex,PatientAge,AccessionNumber,StudyDate,"
        f"{','.join(CHEXPERT_LABELS)},ViewPosition,Rows,Columns,Manufacturer"
    ]
    for study in range(N_STUDIES):
        folder = f"id_0002{study}/Study_2.16.{study}/Series_5.17.{study}"
        age = "85 or more" if study == 5 else f"{40 + 5 * study}"
        for image, view in enumerate(("PA", "L")):
            name = f"image-{study}{image}-20-1"
            draw(f"images/{folder}/{name}.png")
            lines.append(
                f"{2 * study + image},Anonymized_DICOMs/{folder}/{name}.dcm,"
                f"images/{folder}/{name}.png,id_0002{study},F,{age},77{study % 2},20080609,"
                f"{_CHEXPERT_CELLS[study % 3]},{view},64,64,Siemens"
            )
    _write(root / "master_spreadsheet_update.csv", *lines)


def montgomery(root: Path, draw: Draw) -> None:
    for study in range(N_STUDIES):
        name = f"MCUCXR_000{study + 1}_{study % 2}"
        draw(f"CXR_png/{name}.png")
        _write(
            root / "ClinicalReadings" / f"{name}.txt",
            *("Patient's Sex: F", f"Patient's Age: 02{study}Y", "normal male"),
        )


def shenzhen(root: Path, draw: Draw) -> None:
    for study in range(N_STUDIES):
        name = f"CHNCXR_000{study + 1}_{study % 2}"
        draw(f"CXR_png/{name}.png")
        _write(root / "ClinicalReadings" / f"{name}.txt", f"male 4{study}yrs", "normal")


def covidx(root: Path, draw: Draw) -> None:
    lists: dict[str, list[str]] = {"train": [], "test": []}
    for study in range(N_STUDIES):
        folder = "train" if study < 4 else "test"
        draw(f"{folder}/COVID-{study}.png")
        found = "positive" if study % 2 else "negative"
        lists[folder].append(f"pat {study} COVID-{study}.png {found} cohen")
    for folder, lines in lists.items():
        _write(root / f"{folder}_COVIDx9B.txt", *lines)


RELEASES: dict[str, Callable[[Path, Draw], None]] = {
    "chexpert": chexpert,
    "chexpert-plus": chexpert_plus,
    "padchest": padchest,
    "padchest-gr": padchest_gr,
    "nih-google": nih_google,
    "chestx-det": chestx_det,
    "covid-radiography": covid_radiography,
    "vindr-cxr/kaggle": vindr_kaggle,
    "vindr-cxr/physionet": vindr_physionet,
    "vindr-pcxr": vindr_pcxr,
    "rsna": rsna,
    "siim-acr": siim_acr,
    "openi/xml": openi_xml,
    "openi/kaggle": openi_kaggle,
    "mimic-cxr-jpg": mimic_cxr_jpg,
    "brax": brax,
    "montgomery": montgomery,
    "shenzhen": shenzhen,
    "covidx": covidx,
}
"""By name of the data set and, where there are several layouts, that of the layout."""
