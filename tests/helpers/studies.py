"""A small study on the shipped data."""

from conftest import first_configurations
from ruamel.yaml import YAML

SMALL = {
    "dataset": str(first_configurations()),
    "basis": {"elements": ["Be"]},
    "levels": [2, 4, 5],
    "twojmax": [2, 4],
    "weights": [1, 12.25],
    "sizes": [20, 60, "all"],
    "sampling_methods": ["random", "leverage", "block-leverage"],
    "repetitions": 3,
    "confidence": {"splits": 2, "bootstrap": 50},
    "cost": {"measure_md": False},  # what is timed differs from run to run
}


def study_file(folder, **changes):
    path = folder / "study.yaml"
    content = {key: value for key, value in {**SMALL, **changes}.items() if value is not None}
    with path.open("w") as stream:
        YAML().dump(content, stream)
    return path
