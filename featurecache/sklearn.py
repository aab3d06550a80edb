"""Heads as scikit-learn estimators, for cross-validation, pipelines and grid search."""

import warnings
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.model_selection import GroupShuffleSplit, ShuffleSplit
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, column_or_1d, validate_data

from featurecache.errors import FeaturecacheWarning
from featurecache.heads.config import BatchNorm, HeadConfig, Loss, PosWeight, Resample, TextAblation
from featurecache.heads.text_features import LabelTexts

_SETTINGS = (
    *("hidden", "batch_norm", "dropout", "noise", "learning_rate", "weight_decay", "epochs"),
    *("batch_size", "patience", "loss", "pos_weight", "resample", "text_ablation"),
)


class HeadClassifier(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """A head on image embeddings, as a scikit-learn classifier.

    Targets are (N, C) multilabel indicators of 1 and 0, or (N,) classes. Two classes are one label;
    more classes are one label each, of which the most probable is predicted.

    Some of the rows given to ``fit`` are held out for validation, to stop the training and to
    choose settings. Give ``fit`` the patients as ``groups``, so that none is on both sides.
    ``cross_val_score`` passes its ``groups`` to the splitter alone: give them to ``fit`` as well,
    by ``params``.

    Example:
        >>> import featurecache as fc
        >>> from sklearn.model_selection import GroupKFold, cross_val_score
        >>> X, y, patients = fc.open_cache("cache/phantom/tiny.h5").arrays("train")
        >>> scores = cross_val_score(
        ...     fc.HeadClassifier("prototype"),
        ...     X,
        ...     y.astype(int),
        ...     groups=patients,
        ...     params={"groups": patients},
        ...     cv=GroupKFold(3),
        ...     scoring="roc_auc",
        ... )
        >>> float(scores.mean()) > 0.8
        True

    Args:
        head: Name of the head.
        texts: Text embeddings of the C labels, for a head that uses text.
        validation_size: Fraction of the rows that is held out for validation.
        random_state: Random seed of the validation split and of the training.
        hidden: This and the following arguments are settings of ``HeadConfig``.

    Attributes:
        classes_: The classes, or the indices of the labels.
        trained_: The trained head.
    """

    def __init__(
        self,
        head: str = "baseline",
        *,
        texts: LabelTexts | None = None,
        validation_size: float = 0.15,
        random_state: int = 0,
        hidden: tuple[int, ...] | None = HeadConfig.hidden,
        batch_norm: BatchNorm = HeadConfig.batch_norm,
        dropout: float = HeadConfig.dropout,
        noise: float = HeadConfig.noise,
        learning_rate: float | None = HeadConfig.learning_rate,
        weight_decay: float = HeadConfig.weight_decay,
        epochs: int | None = HeadConfig.epochs,
        batch_size: int | None = HeadConfig.batch_size,
        patience: int = HeadConfig.patience,
        loss: Loss = HeadConfig.loss,
        pos_weight: PosWeight = HeadConfig.pos_weight,
        resample: Resample = HeadConfig.resample,
        text_ablation: TextAblation = HeadConfig.text_ablation,
    ) -> None:
        # scikit-learn requires an explicit signature, and each argument as an attribute.
        arguments = locals()
        for name in self._get_param_names():
            setattr(self, name, arguments[name])

    def fit(self, X: Any, y: Any, groups: NDArray[Any] | None = None) -> Self:
        """Train the head.

        Args:
            X: (N, D) embeddings of any length.
            y: (N, C) of 1, 0 and NaN for unknown, as ``Cache.arrays`` returns it, or (N,) classes.
            groups: (N,) group of each row, such as its patient. No group is on both sides of the
                validation split, or of the folds in which a head chooses its settings. Without
                groups, rows are split at random, as if each were of another patient.

        Raises:
            UsageError: A setting is out of range, or has no effect on the head.
            ValueError: X, y or groups is unsuitable.

        Warns:
            FeaturecacheWarning: The fit of a head without epochs stopped before its optimum.
        """
        from featurecache.heads.fit import fit_head
        from featurecache.heads.types import TrainingData

        unknown = _unknown_entries(y)
        y = y if unknown is None else np.where(unknown, 0, y)
        X, y = validate_data(self, X, y, multi_output=True, dtype=np.float32)
        check_classification_targets(y)
        labels = self._to_labels(y)
        if unknown is not None:
            labels[unknown] = -1
        splitter = (ShuffleSplit if groups is None else GroupShuffleSplit)(
            1, test_size=self.validation_size, random_state=self.random_state
        )
        train, val = next(splitter.split(X, groups=groups))
        settings = {name: getattr(self, name) for name in _SETTINGS}
        patient = None if groups is None else np.unique(groups, return_inverse=True)[1]
        self.trained_ = fit_head(
            TrainingData(X, labels, np.sort(train), np.sort(val), self.texts, patient=patient),
            HeadConfig(head=self.head, seed=self.random_state, **settings),
        )
        if not self.trained_.converged:
            warnings.warn(
                f"the fit of {self.head} stopped before its optimum",
                FeaturecacheWarning,
                stacklevel=2,
            )
        return self

    def _to_labels(self, y: NDArray[Any]) -> NDArray[np.int8]:
        """Return the targets as labels (N, C), and remember the classes."""
        self.multilabel_ = y.ndim == 2 and y.shape[1] > 1
        if self.multilabel_:
            if not np.isin(y, (0, 1)).all():
                raise ValueError("y with several columns must consist of 1 and 0")
            self.classes_ = np.arange(y.shape[1])
            return np.asarray(y, dtype=np.int8)
        self.classes_, index = np.unique(column_or_1d(y, warn=True), return_inverse=True)
        if len(self.classes_) < 2:
            raise ValueError("HeadClassifier needs at least two classes, but y has 1 class")
        if len(self.classes_) == 2:
            return np.asarray(index[:, np.newaxis], dtype=np.int8)
        return np.asarray(index[:, np.newaxis] == np.arange(len(self.classes_)), dtype=np.int8)

    def predict_proba(self, X: Any) -> NDArray[np.float64]:
        """Return probabilities for embeddings (N, D).

        Returns:
            (N, C): of each label in the multilabel case, else of each class, with rows that sum
            to 1.
        """
        p = self._label_probabilities(X)
        if self.multilabel_:
            return p
        if p.shape[1] == 1:
            return np.hstack([1 - p, p])
        normalized: NDArray[np.float64] = p / p.sum(axis=1, keepdims=True)
        return normalized

    def decision_function(self, X: Any) -> NDArray[np.float32]:
        """Return log-odds for embeddings (N, D): (N, C), or (N,) for two classes."""
        from featurecache.metrics.platt_scaling import log_odds

        # Heads compute in float32, and further digits depend on the size of the batch.
        odds = log_odds(self._label_probabilities(X)).astype(np.float32)
        return odds[:, 0] if odds.shape[1] == 1 else odds

    def predict(self, X: Any) -> NDArray[Any]:
        """Return predictions for embeddings (N, D).

        Returns:
            (N, C) of 1 where a label is more probable than not and 0 elsewhere in the multilabel
            case, else (N,) the most probable classes.
        """
        p = self.predict_proba(X)
        if self.multilabel_:
            return (p > 0.5).astype(np.int64)
        classes: NDArray[Any] = self.classes_[p.argmax(axis=1)]
        return classes

    def _label_probabilities(self, X: Any) -> NDArray[np.float64]:
        from featurecache.heads.fit import predict_probabilities

        check_is_fitted(self)
        X = validate_data(self, X, reset=False, dtype=np.float32)
        return predict_probabilities(self.trained_.module, X)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_label = True
        return tags


def _unknown_entries(y: Any) -> NDArray[np.bool_] | None:
    """Return where a label matrix is NaN; None for other targets and without unknown labels."""
    values = np.asarray(y)
    if values.ndim != 2 or values.dtype.kind != "f":
        return None
    unknown: NDArray[np.bool_] = np.isnan(values)
    return unknown if unknown.any() else None
