"""Weights of features for classes, and how they are learnt."""

import math
from array import array
from collections import defaultdict


class AveragedPerceptron:
    """Weights of features for classes, and how they are learnt. Stands in for NLTK's class of this name."""

    json_tag = "nltk.tag.perceptron.AveragedPerceptron"

    def __init__(self, weights=None):
        self.weights = weights or {}
        self.classes = set()
        self._start_learning()

    def _start_learning(self):
        self._totals = defaultdict(int)  # (feature, class) -> the sum of its weight over all instances so far
        self._tstamps = defaultdict(int)  # (feature, class) -> the instance up to which that sum goes
        self.i = 0

    def predict(self, features, return_conf=False):
        """(class with the highest sum of weights, its confidence or None). Of equal sums the class that sorts last wins."""
        weights, scores = self.weights, defaultdict(float)
        for feature, value in features.items():
            row = weights.get(feature)
            if row is not None and value != 0:
                for label, weight in row.items():
                    scores[label] += value * weight
        best = max(self.classes, key=lambda label: (scores[label], label))
        return best, confidence(array("d", scores.values())) if return_conf else None

    def update(self, truth, guess, features):
        """Learn from one instance."""
        self.i += 1
        if truth == guess:
            return
        for feature in features:
            row = self.weights.setdefault(feature, {})
            before = row.get(truth, 0.0), row.get(guess, 0.0)
            for label, weight, change in ((truth, before[0], 1.0), (guess, before[1], -1.0)):
                key = feature, label
                self._totals[key] += (self.i - self._tstamps[key]) * weight
                self._tstamps[key] = self.i
                row[label] = weight + change

    def average_weights(self):
        """Each weight becomes its mean over all instances, to the thousandth; zeros are dropped."""
        weights = self.weights
        for feature, row in weights.items():
            averaged = {}
            for label, weight in row.items():
                key = feature, label
                total = self._totals[key] + (self.i - self._tstamps[key]) * weight
                if mean := round(total / self.i, 3):
                    averaged[label] = mean
            weights[feature] = averaged

    def encode_json_obj(self):
        return plain(self.weights)

    @classmethod
    def decode_json_obj(cls, obj):
        return cls(obj)


def plain(weights):
    return {feature: dict(row) for feature, row in weights.items()}


def confidence(scores):
    """The softmax of the highest score, computed as NLTK does, with numpy; without it, to the last bit or two."""
    try:
        import numpy
    except ImportError:
        powers = [math.exp(score) for score in scores]
        return max(powers) / math.fsum(powers)
    powers = numpy.exp(numpy.frombuffer(scores, dtype=float))
    return max(powers / numpy.sum(powers))
