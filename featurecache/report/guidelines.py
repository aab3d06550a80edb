"""Items of reporting guidelines, and which of them a report answers.

The numbers are those of the guidelines; the topics are summaries, so the guidelines themselves and
the forms of a journal go before them. Each item is a number, a topic, the name of the fact in a
report that answers it (see ``checklist.facts_of``; empty where only the authors can), and what is
left for the authors.
"""

from dataclasses import dataclass
from typing import Final

ALL: Final = "the whole item"
"""What is left for the authors where the report says nothing."""


@dataclass(frozen=True)
class Item:
    """An item of a guideline.

    Attributes:
        number: its number, with the letter of a sub-item.
        topic: what it is about.
        fact: the fact that answers it, fully or in part; empty for none.
        authors: what the authors add to the fact; empty for nothing.
    """

    number: str
    topic: str
    fact: str = ""
    authors: str = ""


@dataclass(frozen=True)
class Guideline:
    """A reporting guideline.

    Attributes:
        key: its name in names of files.
        name: its name.
        citation: where it was published.
        items: its items, in order.
    """

    key: str
    name: str
    citation: str
    items: tuple[Item, ...]


CLAIM: Final = Guideline(
    "claim",
    "CLAIM 2024",
    "Tejani AS et al. Checklist for Artificial Intelligence in Medical Imaging (CLAIM): 2024 "
    "update. Radiology: Artificial Intelligence 2024; 6(4): e240300",
    (
        Item("1", "title says that AI is used, and which"),
        Item("2", "abstract"),
        Item("3", "background, intended use"),
        Item("4", "aims, hypotheses"),
        Item("5", "prospective or retrospective"),
        Item("6", "goal of the study"),
        Item("7", "sources of the data", "source", "origin, dates, links"),
        Item("8", "criteria to include and exclude", "flow", "criteria before the data set"),
        Item("9", "preprocessing", "preprocessing", "before the data set"),
        Item("10", "selection of subsets", "subset", "reasons"),
        Item("11", "de-identification", "deidentified", "before the data set"),
        Item("12", "missing data", "missing"),
        Item("13", "image acquisition", "views", "devices, protocols"),
        Item("14", "definition of the reference standard", "labels", "how labels were obtained"),
        Item("15", "why this reference standard"),
        Item("16", "who annotated"),
        Item("17", "annotation of the test set"),
        Item("18", "variability of raters"),
        Item("19", "assignment to partitions", "partition", "how it was drawn"),
        Item("20", "level at which partitions are disjoint", "disjoint"),
        Item("21", "intended sample size", "size", "why it is enough"),
        Item("22", "model", "model"),
        Item("23", "software and versions", "software"),
        Item("24", "initial weights", "initialization"),
        Item("25", "training", "training"),
        Item("26", "selection of the final model", "selection"),
        Item("27", "ensembles", "ensemble"),
        Item("28", "performance metrics", "metrics"),
        Item("29", "uncertainty and significance", "uncertainty"),
        Item("30", "robustness, sensitivity analyses", "robustness", "further analyses"),
        Item("31", "explainability", "explanation", "further methods"),
        Item("32", "internal testing", "internal"),
        Item("33", "external testing", "external"),
        Item("34", "trial registration"),
        Item("35", "numbers included and excluded", "flow"),
        Item("36", "characteristics by partition", "cohort", "clinical characteristics"),
        Item("37", "performance, by partition and subgroup", "performance", "further groups"),
        Item("38", "diagnostic accuracy and its precision", "accuracy"),
        Item("39", "analysis of failures", "failures", "interpretation"),
        Item("40", "limitations", "warnings", "discussion"),
        Item("41", "implications for practice"),
        Item("42", "full protocol"),
        Item("43", "availability of software, model, data", "code", "where they are published"),
        Item("44", "funding"),
    ),
)

TRIPOD_AI: Final = Guideline(
    "tripod-ai",
    "TRIPOD+AI",
    "Collins GS et al. TRIPOD+AI statement: updated guidance for reporting clinical prediction "
    "models that use regression or machine learning methods. BMJ 2024; 385: e078378",
    (
        Item("1", "title"),
        Item("2", "abstract"),
        Item("3a", "healthcare context, existing models"),
        Item("3b", "target population, intended use and users"),
        Item("3c", "known health inequalities"),
        Item("4", "objectives"),
        Item("5a", "sources of the data", "source", "origin, representativeness"),
        Item("5b", "dates"),
        Item("6a", "setting, centers"),
        Item("6b", "eligibility", "flow", "criteria before the data set"),
        Item("6c", "treatments"),
        Item("7", "preprocessing, quality checks", "preprocessing", "quality checks"),
        Item("8a", "definition of the outcome", "labels", "how and when it was assessed"),
        Item("8b", "who assessed the outcome"),
        Item("8c", "blinding of the outcome's assessment"),
        Item("9a", "choice of predictors", "model", "reasons"),
        Item("9b", "definition of predictors", "views", "devices, protocols"),
        Item("9c", "who assessed predictors"),
        Item("10", "sample size", "size", "why it is enough"),
        Item("11", "missing data", "missing"),
        Item("12a", "how the data were used, partitions", "partition", "how it was drawn"),
        Item("12b", "handling of predictors", "model"),
        Item("12c", "type of model, building, tuning, internal validation", "training", "reasons"),
        Item("12d", "heterogeneity across clusters"),
        Item("12e", "measures and plots of performance", "metrics", "reasons"),
        Item("12f", "model updating", "updating"),
        Item("12g", "how predictions were computed", "code"),
        Item("13", "class imbalance", "imbalance"),
        Item("14", "approaches to fairness", "subgroups", "approaches"),
        Item("15", "output and thresholds", "threshold", "reasons"),
        Item("16", "differences between development and evaluation", "shift", "settings"),
        Item("17", "ethical approval"),
        Item("18a", "funding"),
        Item("18b", "conflicts of interest"),
        Item("18c", "protocol"),
        Item("18d", "registration"),
        Item("18e", "availability of data", "source", "access"),
        Item("18f", "availability of code", "code", "where it is published"),
        Item("19", "patient and public involvement"),
        Item("20a", "flow of participants", "flow"),
        Item("20b", "characteristics of participants", "cohort", "dates, treatments"),
        Item("20c", "comparison with the development data", "shift", "settings"),
        Item("21", "participants and events in each analysis", "cohort"),
        Item("22", "full model", "code", "where it is published"),
        Item("23a", "performance with intervals, also of groups", "performance", "further groups"),
        Item("23b", "heterogeneity of performance across clusters"),
        Item("24", "results of model updating", "updating"),
        Item("25", "interpretation"),
        Item("26", "limitations", "warnings", "discussion"),
        Item("27a", "poor or missing input data in use", "unsure", "procedure"),
        Item("27b", "interaction and expertise of users"),
        Item("27c", "next steps, generalizability"),
    ),
)

STARD_AI: Final = Guideline(
    "stard-ai",
    "STARD-AI",
    "Sounderajah V et al. The STARD-AI reporting guideline for diagnostic accuracy studies using "
    "artificial intelligence. Nature Medicine 2025; 31: 3283-3289",
    (
        Item("1", "title or abstract names AI and a measure of accuracy"),
        Item("2", "abstract"),
        Item("3", "background, intended use, workflow"),
        Item("4", "objectives, hypotheses"),
        Item("5", "prospective or retrospective"),
        Item("6", "ethical approval"),
        Item("7", "eligibility of participants and data", "flow", "criteria before the data set"),
        Item("8", "how participants were identified"),
        Item("9", "where and when"),
        Item("10", "consecutive, random or convenience series"),
        Item("11", "source of the data", "source", "why they were collected"),
        Item("12", "who annotated, and how"),
        Item("13", "devices, software", "software", "devices"),
        Item("14", "acquisition, preprocessing", "preprocessing", "acquisition"),
        Item("15a", "index test", "model"),
        Item("15b", "development of the index test, sample sizes", "partition"),
        Item("15c", "cutoffs of the index test", "threshold", "whether they were prespecified"),
        Item("15d", "users and their expertise"),
        Item("16a", "reference standard", "labels", "how labels were obtained"),
        Item("16b", "why this reference standard"),
        Item("16c", "cutoffs of the reference standard", "labels", "reasons"),
        Item("17a", "what was known when the index test was read", "blinding"),
        Item("17b", "what was known when the reference was assessed"),
        Item("18", "methods for accuracy", "uncertainty"),
        Item("19", "indeterminate results", "unsure", "of the reference standard"),
        Item("20", "missing data", "missing"),
        Item("21", "variability of accuracy", "robustness", "whether it was prespecified"),
        Item("22", "intended sample size", "size", "why it is enough"),
        Item("23", "analyses of errors, bias and fairness", "subgroups", "further analyses"),
        Item("24", "flow diagram", "flow"),
        Item("25", "characteristics by split", "cohort", "clinical characteristics"),
        Item("26a", "severity of disease"),
        Item("26b", "alternative diagnoses", "cohort", "other diagnoses"),
        Item("27", "time between index test and reference"),
        Item("28", "whether the data represent the intended population", "cohort", "comparison"),
        Item("29", "how external data differ", "shift", "settings"),
        Item("30", "cross tabulation", "failures"),
        Item("31", "accuracy and its precision", "accuracy"),
        Item("32", "adverse events"),
        Item("33", "limitations", "warnings", "discussion"),
        Item("34", "implications for practice"),
        Item("35", "ethics, fairness"),
        Item("36", "registration"),
        Item("37", "protocol"),
        Item("38", "funding"),
        Item("39", "commercial interests"),
        Item("40a", "availability of data and code", "code", "where they are published"),
        Item("40b", "whether outputs are stored and auditable", "audit"),
    ),
)

GUIDELINES: Final = (CLAIM, TRIPOD_AI, STARD_AI)
