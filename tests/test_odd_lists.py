"""Folders and lists as people and data sets have them are understood, or refused with the cause and the cure."""

import logging
import os
import shutil
import unicodedata

import pytest
from conftest import BUNDLED, REAL
from test_own_videos import a_folder

from footage import folders, lists
from picojepa import data

CLIPS = sorted(BUNDLED.parent.glob("*.mp4"))


def listed(tmp_path, content, count=8, encoding="utf-8", name="list.csv"):
    """A list beside so many empty files, 0.mp4 and so on; content may ask for rows by ``{rows}``."""
    for number in range(count):
        (tmp_path / f"{number}.mp4").touch()
    (tmp_path / name).write_bytes(content.encode(encoding))
    return lists.read_list(tmp_path / name)


def rows(form, count=8, end="\n"):
    """Rows of a list, two classes in turn."""
    return "".join(form.format(i=i, label=("jab", "Gruß")[i % 2], number=i % 2) + end for i in range(count))


WAYS = {  # how programs write the same list
    "German Excel": ("\ufeffpath;label\r\n" + rows("{i}.mp4;{label}", end="\r\n"), "utf-8"),
    "sep=": ("\ufeffsep=;\r\npath;label\r\n" + rows("{i}.mp4;{label}", end="\r\n"), "utf-8"),
    "sep= and comma": ("sep=,\npath,label\n" + rows("{i}.mp4,{label}"), "utf-8"),
    "Excel's Unicode text": ("path\tlabel\r\n" + rows("{i}.mp4\t{label}", end="\r\n"), "utf-16"),
    "pandas' index": (",path,label\n" + rows("{i},{i}.mp4,{label}"), "utf-8"),
    "pandas' index, read and written again": ("Unnamed: 0,path,label\n" + rows("{i},{i}.mp4,{label}"), "utf-8"),
    "capital letters": ("Path, Label\n" + rows("{i}.mp4,{label}"), "utf-8"),
    "other names": ("filename,class\n" + rows("{i}.mp4,{label}"), "utf-8"),
    "V-JEPA": (rows("{i}.mp4 {label}"), "utf-8"),
    "V-JEPA, tabs": (rows("{i}.mp4\t{label}"), "utf-8"),
    "no first line": (rows("{i}.mp4,{label}"), "utf-8"),
    "no first line, semicolons": (rows("{i}.mp4;{label}"), "utf-8"),
    "quotes": ('"path","label"\n' + rows('"{i}.mp4","{label}"'), "utf-8"),
    "empty lines": ("\npath,label\n\n" + rows("{i}.mp4,{label}\n"), "utf-8"),
}


@pytest.mark.parametrize("way", WAYS)
def test_a_list_is_read_however_it_was_saved(tmp_path, way, provoked):
    content, encoding = WAYS[way]
    table, _ = listed(tmp_path, content, encoding=encoding)
    assert table.path.tolist() == [f"{tmp_path}/{i}.mp4" for i in range(8)]
    assert table.label.tolist() == ["jab", "Gruß"] * 4
    provoked("a list that was saved in another way", "reading lists")


def test_a_path_with_blanks_keeps_them(tmp_path):
    (tmp_path / "my video 1.mp4").touch()
    (tmp_path / "my video 2.mp4").touch()
    table, _ = listed(tmp_path, "my video 1.mp4 0\nmy video 2.mp4 1\n", 0)
    assert [os.path.basename(path) for path in table.path] == ["my video 1.mp4", "my video 2.mp4"]
    assert table.label.tolist() == ["0", "1"]


def test_a_column_of_numbers_that_has_a_name_stays_unknown(tmp_path, provoked):
    with pytest.raises(ValueError, match="unknown column weight; known columns: path"):
        listed(tmp_path, "weight,path,label\n" + rows("{i},{i}.mp4,{label}"))
    provoked("a list with a mistake", "reading lists")


def test_two_columns_that_may_be_the_path_are_refused(tmp_path, provoked):
    with pytest.raises(ValueError, match="unknown column file, video; known columns"):
        listed(tmp_path, "file,video,label\n" + rows("{i}.mp4,{i}.mp4,{label}"))
    provoked("a list with a mistake", "reading lists")


def test_a_column_without_a_single_word_is_as_if_it_were_not_there(tmp_path):
    table, _ = listed(tmp_path, "path,label,group\n" + rows("{i}.mp4,{label},"))
    assert table.group.isna().all()
    assert {*table.split} == {"pretrain", "validation"}


def test_words_of_splits(tmp_path):
    table, _ = listed(
        tmp_path, "path,label,split\n" + rows("{i}.mp4,{label},train").replace("7.mp4,Gruß,train", "7.mp4,Gruß,Test")
    )
    assert table.split.value_counts().to_dict() == {"pretrain": 7, "validation": 1}


def test_split_lists_of_ucf101(tmp_path):
    """Two lists in a folder beside that of the videos, numbers of classes in one of them, none in the other."""
    a_folder(tmp_path / "UCF-101", {"Archery": 4, "Biking": 4})
    where = tmp_path / "ucfTrainTestlist"
    where.mkdir()
    train = "".join(f"{label}/{i}.mp4 {n}\n" for n, label in enumerate(("Archery", "Biking"), 1) for i in range(3))
    (where / "trainlist01.txt").write_text(train)
    (where / "testlist01.txt").write_text("Archery/3.mp4\nBiking/3.mp4\n")
    (where / "trainlist02.txt").write_text("Archery/0.mp4 1\n")
    for name in ("trainlist01.txt", "testlist01.txt"):
        table, remarks = lists.read_list(where / name)
        assert table.groupby(["split", "label"]).size().to_dict() == {
            ("pretrain", "Archery"): 3,
            ("pretrain", "Biking"): 3,
            ("validation", "Archery"): 1,
            ("validation", "Biking"): 1,
        }
        assert "read together: testlist01.txt (validation) and trainlist01.txt (pretrain)" in remarks
        assert all(os.path.isfile(path) for path in table.path)


def test_a_list_with_its_own_videos_does_not_look_elsewhere(tmp_path):
    """The first file is missing here and there is one of that name in the data set beside: still the list's own."""
    a_folder(tmp_path / "one", {"jab": 3})
    a_folder(tmp_path / "other", {"jab": 4})
    (tmp_path / "one" / "list.csv").write_text(
        "path,label\njab/3.mp4,jab\n" + "".join(f"jab/{i}.mp4,jab\n" for i in range(3))
    )
    table, remarks = lists.read_list(tmp_path / "one" / "list.csv")
    assert all(path.startswith(f"{tmp_path}/one/") for path in table.path)
    assert remarks == []


def test_kinetics_own_list(tmp_path, provoked):
    """Some of the moments are there, as files named after them; the rest is counted."""
    text = "label,youtube_id,time_start,time_end,split\n"
    for i in range(6):
        text += f"{('jab', 'run')[i % 2]},abc{i},{i},{i + 10},{'val' if i > 3 else 'train'}\n"
        if i != 1:
            (tmp_path / f"abc{i}_{i:06d}_{i + 10:06d}.mp4").touch()
    table, remarks = listed(tmp_path, text + ",gone,1,11,test\n", 0)
    assert table.split.tolist() == ["pretrain"] * 3 + ["validation"] * 2
    assert remarks == ["passed over: 2 of 7 moments, without a file or a label"]
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=r"none of its 1 is there; put the videos into its folder, named as"):
        listed(tmp_path / "empty", "label,youtube_id,time_start,time_end\na,b,1,11\n", 0)
    provoked("a list with a mistake", "reading lists")


def test_one_name_in_two_unicode_forms_is_one_class(tmp_path):
    names = [unicodedata.normalize(form, "Übung") for form in ("NFC", "NFD")]
    for number, name in enumerate(names):
        a_folder(tmp_path / "videos", {name: 0})
        for i in range(3):
            (tmp_path / "videos" / name / f"{number}{i}.mp4").touch()
    a_folder(tmp_path / "videos", {"run": 3})
    table, _ = lists.read_list(tmp_path / "videos")
    assert sorted({*table.label}) == ["run", names[0]]
    on_disk, written = names[::-1]
    text = "path,label\n" + "".join(f"{written}/1{i}.mp4,{on_disk}\n" for i in range(3))
    (tmp_path / "videos" / "list.csv").write_text(text)
    shutil.rmtree(tmp_path / "videos" / names[0])
    table, _ = lists.read_list(tmp_path / "videos" / "list.csv")
    assert {*table.label} == {names[0]}
    assert all(os.path.isfile(path) for path in table.path)


# ---------------------------------------------------------------- folders


@pytest.mark.parametrize("order", ["split outside", "split inside", "wrapped", "words"])
def test_folders_of_splits_are_splits(tmp_path, order, caplog):
    sizes = {"train": 3, "val": 1, "test": 2}
    names = {"words": {"train": "Train_256", "val": "my-validation", "test": "testing"}}.get(order, {})
    root = tmp_path / "kinetics" / "videos" if order == "wrapped" else tmp_path / "kinetics"
    for label in ("jab", "run"):
        for split, n in sizes.items():
            split = names.get(split, split)
            a_folder(root, {f"{label}/{split}" if order == "split inside" else f"{split}/{label}": n})
    table, remarks = lists.read_list(tmp_path / "kinetics")
    assert table.groupby(["label", "split"]).size().to_dict() == {
        ("jab", "pretrain"): 3,
        ("jab", "validation"): 3,
        ("run", "pretrain"): 3,
        ("run", "validation"): 3,
    }
    assert any(remark.startswith("folders of splits: ") and "(6) to learn from" in remark for remark in remarks), (
        remarks
    )
    with caplog.at_level(logging.INFO):
        data.own_videos(tmp_path / "kinetics")
    assert "folders of splits" in caplog.text, "in the terminal too"


def test_a_folder_around_all_others_is_passed_through(tmp_path):
    a_folder(tmp_path / "download" / "data set", {"jab": 3, "run": 3})
    table, remarks = lists.read_list(tmp_path)
    assert {*table.label} == {"jab", "run"}
    assert remarks == ["the classes are the folders inside download/data set"]


@pytest.mark.parametrize("name", ["train", "training day", "test drive", "valley", "retest", "devil"])
def test_a_class_may_be_named_like_a_split(tmp_path, name):
    a_folder(tmp_path, {name: 3, "run": 3})
    table, _ = lists.read_list(tmp_path)
    assert {*table.label} == {name, "run"}
    assert {*table.split} == {"pretrain", "validation"}


def test_what_systems_leave_behind_is_passed_over_and_counted(tmp_path):
    a_folder(tmp_path, {"jab": 3, "run": 3, "__MACOSX/jab": 2, "$RECYCLE.BIN": 1, ".ipynb_checkpoints": 1, "empty": 0})
    for name in ("Thumbs.db", ".DS_Store", "notes.txt", "cover.jpg"):
        (tmp_path / "jab" / name).write_text("x")
    (tmp_path / "run" / "linked").symlink_to(tmp_path / "jab")
    table, remarks = lists.read_list(tmp_path)
    assert table.label.value_counts().to_dict() == {"jab": 3, "run": 3}
    assert remarks[0].startswith("passed over: 5 of the system or hidden, ")
    assert all(word in remarks[0] for word in ("1 an empty folder", "1 no video (.txt)", "1 no video (.jpg)"))
    assert remarks[1] == "passed over: 1 linked folders (run/linked); copy them to use them"
    assert remarks[2] == "without videos, and so no classes: empty"


@pytest.mark.parametrize("ending", [".m2ts", ".mxf", ".asf", ".vob", ".m2v", ".f4v", ".divx", ".qt", ".mpe", ".MOV"])
def test_an_ending_of_video_is_enough(tmp_path, ending):
    (tmp_path / f"x{ending}").touch()
    assert folders.is_video(tmp_path / f"x{ending}")


@pytest.mark.parametrize("name", ["x.webp", "x", "x.bin", "x.mp4_old"])
def test_a_file_that_begins_like_a_video_is_one(tmp_path, name):
    shutil.copy(CLIPS[0], tmp_path / name)
    assert folders.is_video(tmp_path / name)


def test_a_picture_or_text_is_no_video(tmp_path):
    (tmp_path / "a.heic").write_bytes(b"\0\0\0\x18ftypheic" + bytes(100))
    (tmp_path / "b.txt").write_text("mp4 " * 100)
    (tmp_path / "c.webp").write_bytes(b"RIFF\x10\0\0\0WEBPVP8 " + bytes(100))
    assert not any(folders.is_video(path) for path in tmp_path.iterdir())


# ---------------------------------------------------------------- files of others

FAILING = REAL / "failing"


@pytest.mark.skipif(not FAILING.is_dir(), reason=f"real videos: no folder {FAILING} (PICOJEPA_REAL)")
class TestInputsOfOthers:
    """Folders and lists on which a version before failed; see their README."""

    def test_splits(self):
        table, remarks = lists.read_list(FAILING / "kinetics_style")
        assert {*table.label} == {"boxing", "running", "waving"}
        assert table.split.value_counts().to_dict() == {"validation": 12, "pretrain": 12}
        assert "folders of splits" in remarks[-1]

    def test_unicode(self):
        table, _ = lists.read_list(FAILING / "nfc_nfd")
        assert {*table.label} == {unicodedata.normalize("NFC", "Übung"), "waving"}

    def test_endings(self):
        assert len(lists.read_list(FAILING / "endings")[0]) == 20

    @pytest.mark.parametrize("name", ["semi", "sep", "utf16", "idx"])
    def test_lists(self, name, tmp_path):
        shutil.copy(FAILING / "csv" / f"{name}.csv", tmp_path)
        table, _ = lists.read_list(tmp_path / f"{name}.csv")
        assert table.label.nunique() == 2
