"""Balance of training, validation and test sets: each category of groups in every set, and sizes near their shares."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from functools import cached_property
from typing import Any

TRAIN, VALIDATE, TEST = "train", "validate", "test"
MIN_GROUPS = 3  # number of groups of a category, so that each of the three sets can have one
# ratio of the size of the validation or test set to its share, for kinds, periodicities and inputs
MAX_SHARE_RATIO = 2.0
MAX_SHARE_RATIO_OF_PAIRS = 1.5  # the same for pairs of a kind and a periodicity, which are more numerous


def represent_categories(
    categories: Sequence[AbstractSet[Any]],
    pairs: Sequence[AbstractSet[Any]],
    sizes: Sequence[int],
    shares: Mapping[str, float],
    sets: Sequence[str],
) -> list[str]:
    """Move groups so that each category with at least `MIN_GROUPS` groups is in every set; return the new sets.

    The rarest category is represented first, and pairs after all categories. A group is moved only if its set retains
    another group of each of its categories, and if the set that receives it does not exceed its share by more than
    `MAX_SHARE_RATIO` or `MAX_SHARE_RATIO_OF_PAIRS`. Groups that are not needed in a set above its share are moved to
    the training set.

    Parameters
    ----------
    categories : sequence of set, length n
        Kinds, periodicities and inputs of each group.
    pairs : sequence of set, length n
        Pairs of a kind and a periodicity of each group.
    sizes : sequence of int, length n
        Number of configurations of each group.
    shares : mapping of str to float
        Fractions of the configurations by set.
    sets : sequence of str, length n
        Initial set of each group.
    """
    balance = _Balance(_select_frequent(categories), sizes, shares, list(sets))
    balance.represent(MAX_SHARE_RATIO)
    all_categories = [group | group_pairs for group, group_pairs in zip(categories, pairs, strict=True)]
    balance = _Balance(_select_frequent(all_categories), sizes, shares, balance.sets)
    balance.represent(MAX_SHARE_RATIO_OF_PAIRS)
    return balance.sets


def _select_frequent(categories: Sequence[AbstractSet[Any]]) -> list[set[Any]]:
    """Select the categories that at least `MIN_GROUPS` groups have."""
    counts = Counter(category for group in categories for category in group)
    return [{category for category in group if counts[category] >= MIN_GROUPS} for group in categories]


@dataclass
class _Balance:
    """Groups with their categories, sizes (in configurations) and sets; `sets` is changed in place."""

    categories: Sequence[AbstractSet[Any]]
    sizes: Sequence[int]
    shares: Mapping[str, float]
    sets: list[str]

    @cached_property
    def counts(self) -> Counter[tuple[Any, str]]:
        """Number of groups by category and set."""
        return Counter((category, self.sets[k]) for k, group in enumerate(self.categories) for category in group)

    def represent(self, max_share_ratio: float) -> None:
        """Move groups until each category is in the validation and test sets, as far as the sizes of the sets allow."""
        n_groups = Counter(category for group in self.categories for category in group)
        for category in sorted(n_groups, key=lambda name: (n_groups[name], name)):
            for name in (VALIDATE, TEST):
                max_size = max_share_ratio * self._compute_target_size(name)
                candidates = [
                    k
                    for k, group in enumerate(self.categories)
                    if category in group
                    and self._is_movable(k)
                    and self._compute_size(name) + self.sizes[k] <= max_size
                ]
                if candidates and not self.counts[category, name]:
                    # a small group that represents other missing categories, too, saves further moves
                    best_candidate = max(candidates, key=lambda k: self._count_missing(k, name) / self.sizes[k])
                    self._move(best_candidate, name)
                    self._return_surplus(name, best_candidate)

    def _return_surplus(self, name: str, protected_group: int) -> None:
        """Move groups of a set above its share to the training set, except `protected_group` and needed groups."""
        for k in range(len(self.sets)):
            is_surplus = self._compute_size(name) - self.sizes[k] >= self._compute_target_size(name)
            if k != protected_group and self.sets[k] == name and is_surplus and self._is_movable(k):
                self._move(k, TRAIN)

    def _move(self, k: int, name: str) -> None:
        for category in self.categories[k]:
            self.counts[category, self.sets[k]] -= 1
            self.counts[category, name] += 1
        self.sets[k] = name

    def _is_movable(self, k: int) -> bool:
        """Check that the set of a group has another group of each of its categories."""
        return all(self.counts[category, self.sets[k]] > 1 for category in self.categories[k])

    def _count_missing(self, k: int, name: str) -> int:
        """Count the categories of a group that a set does not have."""
        return sum(not self.counts[category, name] for category in self.categories[k])

    def _compute_size(self, name: str) -> int:
        return sum(size for size, group_set in zip(self.sizes, self.sets, strict=True) if group_set == name)

    def _compute_target_size(self, name: str) -> float:
        """Compute the number of configurations that corresponds to the share of a set."""
        return self.shares[name] * sum(self.sizes)
