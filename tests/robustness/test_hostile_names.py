"""Names that people hand in lead nowhere else, their files run nothing, and none of it becomes markup."""

import io
import json
import os
import pickle
from html.parser import HTMLParser
from pathlib import Path

import ase.db
import ase.io
import numpy as np
import pandas as pd
import pytest
from conftest import first_configurations
from helpers import hostile
from helpers.hostile import refused, study_content, yaml_text
from hypothesis import given, settings
from hypothesis import strategies as st

from paretofit import Dataset, DesignMatrix, InputError
from paretofit.commands import load_augment_study, load_label_study
from paretofit.commands.active_learning import load_learn_study
from paretofit.dataset import (
    LevelData,
    check_level_name,
    describe_dataset,
    export_dataset,
    import_dataset,
    write_dataset,
)
from paretofit.dataset.io import read_frames, read_labels
from paretofit.fitsnap import read_fitsnap_input
from paretofit.potentials import read_potential
from paretofit.published import import_published
from paretofit.report.page import PageSection, ReportFigure, ReportTable, render_sections
from paretofit.report.page.sweep_page import render_report
from paretofit.study import Study, load_study, run_study

# What is written lies where it was asked for.

OUTWARD = ["../out", "../../out", "/var/out", "a/b", "a\0b", "a\nb", "..", ".", "", " ", "x" * 300, "~/out", "a\u202eb"]


def listing(folder):
    return sorted(str(item.relative_to(folder)) for item in folder.rglob("*"))


@pytest.mark.parametrize("name", OUTWARD)
@pytest.mark.parametrize("load", [load_study, load_label_study, load_learn_study, load_augment_study])
def test_a_study_is_called_what_can_be_a_folder(name, load, tmp_path):
    sections = {load_label_study: "labelling", load_learn_study: "learning", load_augment_study: "augmentation"}
    content = study_content()
    if load in sections:  # a study for one verb alone
        content = {key: content[key] for key in ("dataset", "labelling", sections[load])}
    (tmp_path / "s.yaml").write_text(yaml_text({**content, "name": name}))
    assert "'name'" in refused(load, tmp_path / "s.yaml")


def test_a_study_without_a_name_is_called_after_its_file(tmp_path):
    for stem, name in {"..my études 1": "my-tudes-1", "ü": "study", "a.b-c_d": "a.b-c_d"}.items():
        content = {key: item for key, item in study_content().items() if key != "name"}
        (tmp_path / f"{stem}.yaml").write_text(yaml_text(content))
        assert load_study(tmp_path / f"{stem}.yaml").name == name


@pytest.mark.parametrize("name", OUTWARD)
def test_models_and_levels_name_files_too(name, tmp_path):
    content = study_content()
    (tmp_path / "s.yaml").write_text(yaml_text({**content, "mace": {"models": {name: {"preset": "small"}}}}))
    assert "mace.models" in refused(load_study, tmp_path / "s.yaml")
    if name != "~/out":
        ladder = [{**content["labelling"]["ladder"][0], "name": name}]
        (tmp_path / "s.yaml").write_text(
            yaml_text({**content, "labelling": {**content["labelling"], "ladder": ladder}})
        )
        if "/" in name or not name.strip(". ") or not name.isprintable() or len(name) > 200:
            assert "labelling.ladder" in refused(load_label_study, tmp_path / "s.yaml")


@given(name=st.text(max_size=300))
@settings(max_examples=300, database=None)
def test_a_level_that_is_accepted_is_one_file_name(name):
    try:
        check_level_name(name)
    except InputError:
        return
    path = os.path.normpath(os.path.join("/run/raw", name, "7"))  # noqa: PTH118  (as text: nothing is touched)
    assert path == f"/run/raw/{name}/7"
    assert len(os.fsencode(f"level_{name}.extxyz")) < 255


def test_nothing_in_a_dataset_names_a_file(tmp_path):
    """Import, export and report of a dataset whose every text points elsewhere."""
    work = tmp_path / "inner" / "work"
    work.mkdir(parents=True)
    atoms = [hostile.structure(0.1 * k) for k in range(3)]
    for k, item in enumerate(atoms):
        item.calc = None
        item.info = dict.fromkeys(("config_type", "trajectory", "source", "parent", "../../key"), f"../../out{k}")
    labels = [{"energy": -7.0, "forces": np.zeros((2, 3)), "info": {"source": "/var/out"}}] * 3
    write_dataset(work / "d.h5", atoms, {"..x": LevelData(labels, {"../../functional": "../../out"})})
    with Dataset(work / "d.h5") as data:
        describe_dataset(data)
    for kind in ("extxyz", "db"):
        (path,) = export_dataset(work / "d.h5", work / kind, format=kind).paths.values()
        import_dataset(work / f"{kind}.h5", {"a": path})
    assert all(item in {"inner", "inner/work"} or item.startswith("inner/work/") for item in listing(tmp_path))
    assert listing(work) == ["d.h5", "db", "db.h5", "db/level_..x.db", "db/levels.yaml", "extxyz", "extxyz.h5",
                             "extxyz/level_..x.extxyz", "extxyz/levels.yaml"]  # fmt: skip


def test_outputs_of_a_fitsnap_input_stay_in_the_folder(tmp_path):
    text = hostile.valid("fitsnap_input").decode() + "\n[OUTFILE]\nmetrics = ../../m\npotential = /tmp/../../p\n"
    (tmp_path / "in.in").write_text(text)
    settings = read_fitsnap_input(tmp_path / "in.in")
    assert Path(settings.potential_file).name == "p", "fit_fitsnap takes the last part only"
    assert Path(settings.metrics_file).stem == "m"


def test_reading_leaves_a_database_as_it_is(tmp_path):
    with ase.db.connect(tmp_path / "a.db") as database:
        database.write(hostile.structure())
    before = (tmp_path / "a.db").read_bytes()
    read_frames(tmp_path / "a.db", None)
    assert (tmp_path / "a.db").read_bytes() == before
    assert listing(tmp_path) == ["a.db"]


# Nothing is unpickled.


class Bomb:
    def __init__(self, marker):
        self.marker = str(marker)

    def __reduce__(self):
        return os.mkdir, (self.marker,)


PLACES = [
    *("a.extxyz", "a.xyz", "a.json", "a.db", "a.traj", "a.pckl", "a.pkl", "a.npy", "a.npz", "a.h5", "a.hdf5", "a.cfg"),
    *("OUTCAR", "vasprun.xml", "POSCAR", "a.bundle", "a.gpw", "a.cif", "a.py", "a.yaml", "a.in", "a.csv", "a.out"),
    *("a.snapcoeff", "mace.json", "a.committee.h5", "a.model.txt", "a.lmdb", "a.aselmdb", "a.xyz.gz"),
]


@pytest.mark.parametrize("name", PLACES)
def test_a_pickle_is_nowhere_opened(name, tmp_path):
    marker, path, out = tmp_path / "marker", tmp_path / name, tmp_path / "o.h5"
    bomb = pickle.dumps(Bomb(marker))
    readers = [read_frames_of, hostile.whole_dataset, DesignMatrix.open, load_study, read_fitsnap_input, hostile.front]
    for content in (bomb, b"PickleTrajectory\n" + bomb, array_of(Bomb(marker))):
        path.write_bytes(content)
        for read in (*readers, read_potential):
            refused(read, path)
        for source in (path, tmp_path):
            refused(import_dataset, out, {"a": source})
    assert not marker.exists()
    pickle.loads(bomb)  # noqa: S301  (that it would have worked)
    assert marker.exists()


def read_frames_of(path):
    return read_frames(path, None)


def array_of(thing):
    stream = io.BytesIO()
    np.save(stream, np.array([thing], object), allow_pickle=True)
    return stream.getvalue()


def test_the_published_pickles_are_opened_only_when_that_is_said(tmp_path):
    pytest.importorskip("tables")
    marker = tmp_path / "marker"
    for name in ("structures", "prec_1"):
        pd.DataFrame({"ASEatoms": [Bomb(marker)]}).to_hdf(tmp_path / f"Be_{name}.h5", key="df")
    assert "--allow-pickle" in refused(import_published, tmp_path / "o.h5", tmp_path)
    for read in (read_frames_of, hostile.whole_dataset, DesignMatrix.open):
        refused(read, tmp_path / "Be_structures.h5")
    assert not marker.exists()
    with pytest.raises(InputError, match="must be an ase.Atoms"):
        import_published(tmp_path / "o.h5", tmp_path, allow_pickle=True)
    assert marker.exists(), "it would have worked"


# Nothing becomes markup.

EVIL = "</script></td><script>alert(1)</script><img src=x onerror=alert(2)>\"' onload='x' &amp;<!-- $x$ ]]> {{ 7*7 }}"
LEVEL = "<img src=x onerror=alert(2)><script>alert(1)<svg onload=x>\"'&amp;<!-- $x$ {{ 7*7 }}"


class Skeleton(HTMLParser):
    """Elements of a page and the names of their attributes, in order; and its text outside of scripts and styles."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.text, self.inside = [], "", ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, *sorted(name for name, _ in attributes)))
        self.inside = tag
        assert not any(name.startswith("on") for name, _ in attributes)
        targets = {str(value) for name, value in attributes if name in {"src", "href"}} - {"structures.html"}
        assert all(target.startswith(("#", "data:")) for target in targets)

    def handle_endtag(self, tag):
        self.inside = ""

    def handle_data(self, data):
        self.text += "" if self.inside in {"script", "style"} else data


def section_page(word):
    table = pd.DataFrame({"structure": [word, "b"], word: [1.0, 2.0]})
    pictures = [ReportFigure("p", word, b"<svg/>"), ReportFigure(word, word, missing_reason=word)]
    return render_sections(
        title=word, opening=word, sections=[PageSection(word, table, pictures)], failures=[word], closing=word
    )


def front_page(word):
    table = pd.DataFrame({"level": [word, "b"], word: [1.0, 2.0]})
    pictures = [ReportFigure("p", word, b"<svg/>"), ReportFigure(word, "", missing_reason=word)]
    return render_report(
        title=word, opening=word, findings=[], figures=pictures, tables=[ReportTable(word, word, word, table)],
        summary={word: word}, warnings=[word],
    )  # fmt: skip


@pytest.mark.parametrize("page", [section_page, front_page])
def test_words_are_text_wherever_they_stand(page):
    evil, plain = Skeleton(page(EVIL)), Skeleton(page("plain"))
    assert evil.elements == plain.elements
    assert evil.text.count(EVIL) >= 6


def relabelled(path, name, word):
    """The first configurations with another name for a level, and a word for their type and relations."""
    with Dataset(first_configurations()) as data:
        atoms = list(data)
        for item in atoms:
            item.info = {**item.info, "config_type": f"{word} {str(item.info['config_type'])[:3]}", "source": word}
        sample = data.levels[-2:]
        levels = {
            f"{name}{k}": LevelData(read_labels(data, item), {"functional": word}) for k, item in enumerate(sample)
        }
    write_dataset(path, atoms, levels)
    return path, list(levels)


@pytest.mark.slow
@pytest.mark.usefixtures("rendered_figures")  # such names must also be drawn
def test_the_report_of_a_run_has_no_element_from_data(tmp_path):
    pages = {}
    for location, name, word in (("plain", "level", "word"), ("evil", LEVEL, EVIL)):
        dataset, levels = relabelled(tmp_path / f"{location}.h5", name, word)
        study = Study(
            name="same", dataset=dataset, basis={"elements": ["Be"]}, levels=levels, twojmax=[2], weights=[1, 12.25],
            sizes=[20, 60], repetitions=2, cost={"md_us_per_atom_step": {2: 20}},
        )  # fmt: skip
        run = run_study(study, out=tmp_path / location)
        text = run.report.read_text(encoding="utf-8")
        assert "{{ 7*7 }}" in text or location == "plain", "names of levels are on the page"
        pages[location] = Skeleton(text)
    assert pages["evil"].elements == pages["plain"].elements
    assert f"{LEVEL}1" in pages["evil"].text
    assert json.loads((tmp_path / "evil" / "run.json").read_text())["study"] == "same"
    outside = [item for item in listing(tmp_path) if item.split("/")[0] not in {"plain", "evil", "plain.h5", "evil.h5"}]
    assert not outside
