"""What a chapter's cached run depends on."""

import json

import pytest

from tools.book_extension import chapter_digests, refuse


@pytest.fixture
def tree(tmp_path):
    """A project of two chapters, one module and one data file."""
    for folder in ("book", "picojepa", "data"):
        (tmp_path / folder).mkdir()
    (tmp_path / "picojepa/data.py").write_text("A = 1\n")
    (tmp_path / "data/clips.csv").write_text("clip\n")
    for name in ("01_data", "02_masking"):
        cells = [{"cell_type": "code", "source": ["1 + 1"]}, {"cell_type": "markdown", "source": ["prose"]}]
        (tmp_path / f"book/{name}.ipynb").write_text(json.dumps({"cells": cells}))
    return tmp_path


@pytest.mark.parametrize("path", ["picojepa/data.py", "data/clips.csv"])
def test_every_chapter_is_run_again_when_package_or_data_change(tree, path):
    before = chapter_digests(tree)
    (tree / path).write_text("changed\n")
    after = chapter_digests(tree)
    assert all(before[name] != after[name] for name in before)


def test_every_chapter_is_run_again_when_the_profile_changes(tree, monkeypatch):
    digests = set()
    for profile in ("smoke", "laptop"):
        monkeypatch.setenv("PICOJEPA_PROFILE", profile)
        digests.add(chapter_digests(tree)["01_data"])
    assert len(digests) == 2


@pytest.mark.parametrize("named", ["", "list.csv"])
def test_every_chapter_is_run_again_with_ones_own_videos_and_when_they_change(tree, tmp_path, monkeypatch, named):
    own = tmp_path / "own"
    (own / "a").mkdir(parents=True)
    (own / "a" / "x.mp4").write_text("a video")
    (own / "list.csv").write_text("path,label\na/x.mp4,a\nb/nowhere.mp4,b\n")
    digests = [chapter_digests(tree)["01_data"]]
    monkeypatch.setenv("PICOJEPA_DATA", str(own / named))
    digests.append(chapter_digests(tree)["01_data"])
    assert chapter_digests(tree)["01_data"] == digests[-1]
    (own / "a" / "x.mp4").write_text("another video")
    digests.append(chapter_digests(tree)["01_data"])
    assert len(set(digests)) == 3


@pytest.mark.parametrize(
    ("named", "message"), [("nowhere", "nowhere: nothing there"), ("", "no sub-folders; make one")]
)
def test_a_build_is_refused_in_one_line(tmp_path, monkeypatch, named, message):
    monkeypatch.setenv("PICOJEPA_DATA", str(tmp_path / named))
    with pytest.raises(SystemExit, match=f"^PICOJEPA_DATA: .*{message}"):
        refuse()
    monkeypatch.delenv("PICOJEPA_DATA")
    refuse()


@pytest.mark.parametrize(("old", "new", "changes"), [("1 + 1", "1 + 2", True), ("prose", "other prose", False)])
def test_only_code_of_earlier_chapters_counts(tree, old, new, changes):
    before = chapter_digests(tree)
    path = tree / "book/01_data.ipynb"
    path.write_text(path.read_text().replace(old, new))
    after = chapter_digests(tree)
    assert before["01_data"] == after["01_data"]
    assert (before["02_masking"] != after["02_masking"]) is changes
