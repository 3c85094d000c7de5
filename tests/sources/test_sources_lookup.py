"""Rules of the look-up, one test a rule."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from alignbench.errors import UsageError
from alignbench.sources import load_rows


def put(path: Path, *values: int, column: str = "v") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(json.dumps({column: value}) for value in values))


def values(*args: object, **kwargs: object) -> list[int]:
    return [row["v"] for row in load_rows(*args, **kwargs)]  # type: ignore[arg-type]


def test_an_existing_path_comes_before_the_mirror(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    put(tmp_path / "org" / "name" / "a.jsonl", 1)
    put(tmp_path / "mirror" / "org" / "name" / "a.jsonl", 2)
    assert values("org/name", mirror=tmp_path / "mirror") == [1]


def test_the_hub_layout_comes_before_alias_and_likeness(tmp_path: Path) -> None:
    put(tmp_path / "org" / "hh-rlhf" / "a.jsonl", 1)
    put(tmp_path / "hh_rlhf" / "a.jsonl", 2)
    put(tmp_path / "elsewhere.jsonl", 3)
    (tmp_path / "alignbench.yaml").write_text("org/hh-rlhf: elsewhere.jsonl\n")
    assert values("org/hh-rlhf", mirror=tmp_path) == [1]


def test_the_alias_file_comes_before_likeness(tmp_path: Path) -> None:
    put(tmp_path / "hh_rlhf" / "a.jsonl", 2)
    put(tmp_path / "parts" / "1.jsonl", 3)
    put(tmp_path / "parts" / "2.jsonl", 4)
    (tmp_path / "alignbench.yaml").write_text("Org/HH_RLHF: ['parts/*.jsonl']\n")
    assert values("org/hh-rlhf", mirror=tmp_path) == [3, 4]


def test_the_hubs_default_configuration_is_no_folder(tmp_path: Path) -> None:
    put(tmp_path / "org" / "set" / "data" / "validation.jsonl", 1)
    put(tmp_path / "org" / "set" / "data" / "train.jsonl", 2)
    wanted = {"split": "validation", "config": "default", "mirror": tmp_path}
    assert values("org/set", files=("set_validation.jsonl",), **wanted) == [1]
    put(tmp_path / "org" / "set" / "set_validation.jsonl", 3)
    assert values("org/set", files=("set_validation.jsonl",), **wanted) == [3]


@pytest.mark.parametrize("name", ["Anthropic/hh-rlhf", "hh-rlhf", "HH_RLHF"])
def test_a_folder_is_alike_but_for_case_and_dashes(tmp_path: Path, name: str) -> None:
    put(tmp_path / "hh_rlhf" / "a.jsonl", 2)
    assert values(name, mirror=tmp_path) == [2]


def test_the_mirror_may_come_from_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tmp_path / "some_data" / "a.jsonl", 7)
    monkeypatch.setenv("ALIGNBENCH_DATA", str(tmp_path))
    assert values("some-data") == [7]


def test_globs_are_alternatives_in_order_of_preference(tmp_path: Path) -> None:
    put(tmp_path / "d" / "old.jsonl", 1)
    put(tmp_path / "d" / "new.jsonl", 2)
    assert values("d", mirror=tmp_path, files=["none*", "new*", "old*"]) == [2]


def test_globs_are_tried_from_the_mirror_itself_last(tmp_path: Path) -> None:
    put(tmp_path / "other" / "x.jsonl", 5)
    assert values("org/unlike", mirror=tmp_path, files=["other/x*"]) == [5]


@pytest.mark.parametrize("pattern", ["../secret*", "/etc/*"])
def test_globs_do_not_leave_the_folder(tmp_path: Path, pattern: str) -> None:
    with pytest.raises(UsageError, match="leaves its folder"):
        load_rows("d", mirror=tmp_path, files=[pattern])


def test_the_split_is_read_off_the_name(tmp_path: Path) -> None:
    put(tmp_path / "x_train.jsonl", 1)
    put(tmp_path / "x-test.jsonl", 2)
    put(tmp_path / "dev" / "x.jsonl", 3)
    folder = str(tmp_path)
    assert values(folder, split="test") == [2]
    assert values(folder, split="validation") == [3]
    assert values(folder) == [1]  # several splits: train
    with pytest.raises(UsageError, match="no split 'other'; it has test, train, validation"):
        load_rows(folder, split="other")


def test_a_lone_split_is_the_default(tmp_path: Path) -> None:
    put(tmp_path / "harmless-base_test.jsonl", 4)
    assert values(str(tmp_path)) == [4]


def test_the_configuration_is_a_subfolder_or_part_of_the_name(tmp_path: Path) -> None:
    put(tmp_path / "de" / "x.jsonl", 1)
    put(tmp_path / "mgsm_en.jsonl", 2)
    assert values(str(tmp_path), config="de") == [1]
    assert values(str(tmp_path), config="en") == [2]


def test_the_configuration_counts_where_no_glob_matches(tmp_path: Path) -> None:
    put(tmp_path / "org" / "name" / "generation" / "validation-00000-of-00001.jsonl", 1)
    put(tmp_path / "org" / "name" / "multiple_choice" / "validation-00000-of-00001.jsonl", 2)
    asked = {"mirror": tmp_path, "config": "generation", "split": "validation"}
    assert values("org/name", files=["Old.csv*"], **asked) == [1]
    put(tmp_path / "org" / "name" / "Old.csv.jsonl", 3)
    assert values("org/name", files=["Old.csv*"], **asked) == [3]


def test_files_with_different_columns_are_no_one_data_set(tmp_path: Path) -> None:
    put(tmp_path / "a.jsonl", 1)
    put(tmp_path / "b.jsonl", 2, column="w")
    with pytest.raises(UsageError, match="different columns"):
        load_rows(str(tmp_path))


def test_nothing_found_names_what_was_looked_up_and_the_mend(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"looked up: path org/nothing, the hub .*--data DIR"):
        load_rows("org/nothing")
    with pytest.raises(UsageError, match=r"alignbench\.yaml, a folder like nothing in"):
        load_rows("org/nothing", mirror=tmp_path)


def test_a_mistyped_file_is_not_looked_for_on_the_hub(tmp_path: Path) -> None:
    put(tmp_path / "rankings.jsonl", 1)
    with pytest.raises(UsageError, match=r"did you mean 'rankings.jsonl'"):
        load_rows(str(tmp_path / "ranking.jsonl"))


def test_a_data_folder_that_does_not_exist(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="does not exist"):
        load_rows("org/name", mirror=tmp_path / "none")


def test_real_files(shared_data: Path) -> None:
    assert len(load_rows("Anthropic/hh-rlhf", mirror=shared_data)) == 2312
    assert len(load_rows("truthfulqa/TruthfulQA_v1_817.csv.gz", mirror=shared_data)) == 817


def test_test_data_is_not_taken_for_the_whole(tmp_path: Path) -> None:
    put(tmp_path / "data.jsonl", 1)
    put(tmp_path / "test.jsonl", 2)
    with pytest.raises(UsageError, match="test data beside files of no split"):
        load_rows(tmp_path)
    assert values(tmp_path, split="test") == [2]
    put(tmp_path / "train.jsonl", 3)
    assert values(tmp_path) == [3]


def test_notes_of_another_format_do_not_hide_the_only_split(tmp_path: Path) -> None:
    put(tmp_path / "validation.jsonl", 1)
    (tmp_path / "dataset_infos.json").write_text("{}")
    assert values(tmp_path) == [1]


@pytest.mark.parametrize("name", ["", "y" * 5000, "a\0b", "~nosuchuser/x"])
def test_what_can_be_no_path_is_one_sentence(tmp_path: Path, name: str) -> None:
    for mirror in (None, tmp_path):
        with pytest.raises(UsageError, match="data"):
            load_rows(name + ".jsonl" if name else name, mirror=mirror)


@pytest.mark.parametrize("pattern", ["**x", ""])
def test_a_pattern_that_is_none_is_named(tmp_path: Path, pattern: str) -> None:
    with pytest.raises(UsageError, match="file pattern"):
        load_rows(tmp_path, files=(pattern,))
    (tmp_path / "alignbench.yaml").write_text(f"some/data: '{pattern}'\n")
    with pytest.raises(UsageError, match="file pattern"):
        load_rows("some/data", mirror=tmp_path)


def test_an_alias_file_that_is_no_text_is_named(tmp_path: Path) -> None:
    (tmp_path / "alignbench.yaml").write_bytes(b"\xff\xfe\0")
    with pytest.raises(UsageError, match="no valid YAML"):
        load_rows("some/data", mirror=tmp_path)
