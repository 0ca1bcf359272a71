"""Balance of the training, validation and test sets: every set has each category of groups, and a size near its share.

A group contains configurations that must be in the same set. Its categories are the kinds, periodicities and inputs of
its configurations, or pairs of a kind and a periodicity.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from functools import cached_property
from typing import Any

TRAIN, VALIDATE, TEST = "train", "validate", "test"
MIN_GROUPS = 3  # number of groups that a category must have, so that each of the three sets can have one of them
# largest size of the validation or test set after a group was moved into it to represent a kind, periodicity or input,
# divided by the size that corresponds to its share
MAX_SHARE_RATIO = 2.0
# the same for pairs of a kind and a periodicity; lower, because pairs are more numerous
MAX_SHARE_RATIO_OF_PAIRS = 1.5


def represent_categories(
    categories: Sequence[AbstractSet[Any]],
    pairs: Sequence[AbstractSet[Any]],
    sizes: Sequence[int],
    shares: Mapping[str, float],
    sets: Sequence[str],
) -> list[str]:
    """Move groups so that each category with at least `MIN_GROUPS` groups is in every set; return the new sets.

    The rarest category is represented first, and pairs after all other categories. A group is moved only if its set
    retains another group of each of its categories, and if the size of the set that receives it is at most
    `MAX_SHARE_RATIO` (for pairs, `MAX_SHARE_RATIO_OF_PAIRS`) times the size that corresponds to its share. When a set
    is then larger than its share, groups that it does not need are moved to the training set.

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

    Returns
    -------
    list of str, length n
        New set of each group.
    """
    balance = _Balance(_select_frequent(categories), sizes, shares, list(sets))
    balance.represent(MAX_SHARE_RATIO)
    all_categories = [
        group_categories | group_pairs for group_categories, group_pairs in zip(categories, pairs, strict=True)
    ]
    balance = _Balance(_select_frequent(all_categories), sizes, shares, balance.sets)
    balance.represent(MAX_SHARE_RATIO_OF_PAIRS)
    return balance.sets


def _select_frequent(categories: Sequence[AbstractSet[Any]]) -> list[set[Any]]:
    """Select, for each group, its categories that at least `MIN_GROUPS` groups have."""
    counts = Counter(category for group_categories in categories for category in group_categories)
    return [
        {category for category in group_categories if counts[category] >= MIN_GROUPS} for group_categories in categories
    ]


@dataclass
class _Balance:
    """Groups, numbered from 0, with their categories, sizes (in configurations) and sets.

    `shares` are the shares of the sets. The methods change `sets` in place.
    """

    categories: Sequence[AbstractSet[Any]]
    sizes: Sequence[int]
    shares: Mapping[str, float]
    sets: list[str]

    @cached_property
    def counts(self) -> Counter[tuple[Any, str]]:
        """Number of groups by category and set; `_move` updates it."""
        return Counter(
            (category, set_name)
            for group_categories, set_name in zip(self.categories, self.sets, strict=True)
            for category in group_categories
        )

    def represent(self, max_share_ratio: float) -> None:
        """Move groups until each category is in the validation and test sets, as far as the sizes of the sets allow."""
        n_groups = Counter(category for group_categories in self.categories for category in group_categories)
        for category in sorted(n_groups, key=lambda name: (n_groups[name], name)):
            for set_name in (VALIDATE, TEST):
                max_size = max_share_ratio * self._compute_target_size(set_name)
                candidates = [
                    group
                    for group, group_categories in enumerate(self.categories)
                    if category in group_categories
                    and self._is_movable(group)
                    and self._compute_size(set_name) + self.sizes[group] <= max_size
                ]
                if candidates and not self.counts[category, set_name]:
                    # a small group that also represents other missing categories saves further moves
                    best_candidate = max(
                        candidates, key=lambda group: self._count_missing(group, set_name) / self.sizes[group]
                    )
                    self._move(best_candidate, set_name)
                    self._return_surplus(set_name, best_candidate)

    def _return_surplus(self, set_name: str, protected_group: int) -> None:
        """Move groups that a set above its share does not need, except `protected_group`, to the training set."""
        for group in range(len(self.sets)):
            is_surplus = self._compute_size(set_name) - self.sizes[group] >= self._compute_target_size(set_name)
            is_in_set = self.sets[group] == set_name
            if group != protected_group and is_in_set and is_surplus and self._is_movable(group):
                self._move(group, TRAIN)

    def _move(self, group: int, set_name: str) -> None:
        """Move a group to a set, and update the counts."""
        for category in self.categories[group]:
            self.counts[category, self.sets[group]] -= 1
            self.counts[category, set_name] += 1
        self.sets[group] = set_name

    def _is_movable(self, group: int) -> bool:
        """Check that the set of a group has another group of each of its categories."""
        return all(self.counts[category, self.sets[group]] > 1 for category in self.categories[group])

    def _count_missing(self, group: int, set_name: str) -> int:
        """Count the categories of a group that a set does not have."""
        return sum(not self.counts[category, set_name] for category in self.categories[group])

    def _compute_size(self, set_name: str) -> int:
        """Compute the number of configurations in a set."""
        return sum(size for size, group_set in zip(self.sizes, self.sets, strict=True) if group_set == set_name)

    def _compute_target_size(self, set_name: str) -> float:
        """Compute the number of configurations that corresponds to the share of a set."""
        return self.shares[set_name] * sum(self.sizes)
