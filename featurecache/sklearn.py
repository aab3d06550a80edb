"""Heads as scikit-learn estimators, for cross-validation, pipelines and grids."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.model_selection import GroupShuffleSplit, ShuffleSplit
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, column_or_1d, validate_data

from featurecache.heads.config import HeadConfig, Loss, PosWeight, Resample, TextAblation
from featurecache.heads.text_features import LabelTexts


class HeadClassifier(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """A head on image embeddings: ``fit``, ``predict_proba``, ``predict``, ``decision_function``.

    Targets are (N, C) of 1 and 0, several labels an image, or (N,) classes: two make one label,
    more make a label each, of which the most probable is predicted. Part of the rows given to
    ``fit`` becomes validation, to stop by and to choose settings by; with ``groups``, no patient is
    on both sides.

    Args:
        head: a name in ``featurecache.heads.registry.HEADS``.
        texts: prompt ensembles of the C labels, for a head that uses text.
        validation_share: of the rows given to ``fit``.
        random_state: a seed, of that share and of the training.
        hidden: this and all that follow as ``HeadConfig`` has them.
    """

    def __init__(
        self,
        head: str = "baseline",
        *,
        texts: LabelTexts | None = None,
        validation_share: float = 0.15,
        random_state: int = 0,
        hidden: tuple[int, ...] | None = None,
        dropout: float = HeadConfig.dropout,
        noise: float = HeadConfig.noise,
        learning_rate: float | None = None,
        weight_decay: float = HeadConfig.weight_decay,
        epochs: int | None = None,
        batch_size: int | None = None,
        patience: int = HeadConfig.patience,
        loss: Loss = "bce",
        pos_weight: PosWeight = "none",
        resample: Resample = "none",
        text_ablation: TextAblation = "none",
    ) -> None:
        self.head = head
        self.texts = texts
        self.validation_share = validation_share
        self.random_state = random_state
        self.hidden = hidden
        self.dropout = dropout
        self.noise = noise
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.epochs = epochs
        self.batch_size = batch_size
        self.patience = patience
        self.loss = loss
        self.pos_weight = pos_weight
        self.resample = resample
        self.text_ablation = text_ablation

    def fit(self, X: Any, y: Any, groups: NDArray[Any] | None = None) -> "HeadClassifier":
        """Train on embeddings X (N, D) of any length and targets y.

        Args:
            X: embeddings.
            y: (N, C) of 1 and 0, or (N,) classes.
            groups: (N,) the patient of each row; None where each row is a patient of its own.

        Raises:
            UsageError: as ``fit_head``.
            ValueError: X or y cannot be used; scikit-learn says why.
        """
        from featurecache.heads.fit import fit_head
        from featurecache.heads.types import TrainingData

        X, y = validate_data(self, X, y, multi_output=True, dtype=np.float32)
        check_classification_targets(y)
        labels = self._labels(y)
        if groups is None:
            parts = ShuffleSplit(1, test_size=self.validation_share, random_state=self.random_state)
        else:
            parts = GroupShuffleSplit(
                1, test_size=self.validation_share, random_state=self.random_state
            )
        train, val = next(parts.split(X, groups=groups))
        config = HeadConfig(
            head=self.head,
            hidden=self.hidden,
            dropout=self.dropout,
            noise=self.noise,
            learning_rate=self.learning_rate,
            weight_decay=self.weight_decay,
            epochs=self.epochs,
            batch_size=self.batch_size,
            patience=self.patience,
            loss=self.loss,
            pos_weight=self.pos_weight,
            resample=self.resample,
            text_ablation=self.text_ablation,
            seed=self.random_state,
        )
        data = TrainingData(X, labels, np.sort(train), np.sort(val), self.texts)
        self.trained_ = fit_head(data, config)
        return self

    def _labels(self, y: NDArray[Any]) -> NDArray[np.int8]:
        """(N, C) of what was given, and what the classes are called."""
        self.multilabel_ = y.ndim == 2 and y.shape[1] > 1
        if self.multilabel_:
            if not np.isin(y, (0, 1)).all():
                raise ValueError("y with several columns must be of 1 and 0")
            self.classes_ = np.arange(y.shape[1])
            return np.asarray(y, dtype=np.int8)
        self.classes_, numbers = np.unique(column_or_1d(y, warn=True), return_inverse=True)
        if len(self.classes_) < 2:
            raise ValueError("HeadClassifier needs two classes or more, and there is 1 class")
        if len(self.classes_) == 2:
            return np.asarray(numbers[:, np.newaxis], dtype=np.int8)
        each = np.arange(len(self.classes_))
        return np.asarray(numbers[:, np.newaxis] == each, dtype=np.int8)

    def predict_proba(self, X: Any) -> NDArray[np.float64]:
        """(N, D) embeddings to probabilities.

        Returns:
            Of each label, (N, C), for several labels an image; else of each class, in rows of
            sum 1.
        """
        p = self._of_labels(X)
        if self.multilabel_:
            return p
        if p.shape[1] == 1:
            return np.hstack([1 - p, p])
        total: NDArray[np.float64] = p / p.sum(axis=1, keepdims=True)
        return total

    def decision_function(self, X: Any) -> NDArray[np.float64]:
        """Log-odds: (N, C), or (N,) for two classes."""
        from featurecache.metrics.calibration import log_odds

        odds = log_odds(self._of_labels(X))
        return odds[:, 0] if odds.shape[1] == 1 else odds

    def predict(self, X: Any) -> NDArray[Any]:
        """(N, C) of 1 where a label is more likely than not; else (N,) the most probable class."""
        p = self.predict_proba(X)
        if self.multilabel_:
            return (p > 0.5).astype(np.int64)
        found: NDArray[Any] = self.classes_[p.argmax(axis=1)]
        return found

    def _of_labels(self, X: Any) -> NDArray[np.float64]:
        from featurecache.heads.fit import predict_probabilities

        check_is_fitted(self)
        X = validate_data(self, X, reset=False, dtype=np.float32)
        return predict_probabilities(self.trained_.module, X)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_label = True
        return tags
