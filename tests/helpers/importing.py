"""Import into the same path again and again, as tests of readers do."""

from paretofit import dataset


def import_dataset(output, sources, **options):
    """Import, and replace an existing dataset."""
    return dataset.import_dataset(output, sources, **{"overwrite": not options.get("append"), **options})
