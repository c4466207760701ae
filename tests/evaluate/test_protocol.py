"""Protocols: every file is sound, names are found by listing, a wrong one is refused in one line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from erase import registry
from erase.errors import BadProtocol, UnknownName
from erase.evaluate.protocol import load_protocol

NAMES = registry.known("protocols")
MINIMAL: dict[str, Any] = {
    "version": "1",
    "description": "a test",
    "source": "a test",
    "detector": {"name": "judge", "version": "emoji-v1"},
    "prompts": [{"role": "erased", "aspect": "name", "templates": ["a {word}"]}],
}


def write(folder: Path, **changes: Any) -> str:
    path = folder / "mine.yaml"
    path.write_text(yaml.safe_dump(MINIMAL | changes), encoding="utf-8")
    return str(path)


def test_the_field_s_protocols_are_there_by_name() -> None:
    assert {"gate", "synonyms", "neighbours", "erasebench", "object", "celebrity", "dual-prompt"} <= set(NAMES)
    assert {"multilingual", "canvas/sauron-agg", "canvas/with-seed-images", "i2p/mace-0.6-boxes"} <= set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_every_protocol_is_sound_and_says_what_it_differs_in(name: str) -> None:
    protocol = load_protocol(name)
    assert protocol.title == f"{name} v{protocol.form.version}"
    assert protocol.sampler.steps > 0
    assert protocol.limits.gone > 0.5
    roles = {part.role for part in protocol.form.prompts}
    assert roles == {"erased", "kept"}
    assert protocol.form.differs or "written for this project" in protocol.form.source


def test_the_versions_of_i2p_differ_in_their_policy_alone() -> None:
    found = {name: load_protocol(name) for name in NAMES if name.startswith("i2p/")}
    assert len(found) >= 4
    policies = {name: tuple(one.policy for one in protocol.form.detector) for name, protocol in found.items()}
    assert len(set(policies.values())) == len(policies)
    assert len({str(protocol.form.prompts) for protocol in found.values()}) == 1


def test_mace_counts_boxes_from_six_tenths_up_and_spm_labels_in_images() -> None:
    mace, spm = (load_protocol(f"i2p/{name}").form.detector[0].policy for name in ("mace-0.6-boxes", "spm-imgclass"))
    assert (mace.unit, mace.threshold, len(mace.labels)) == ("box", 0.6, 9)
    assert (spm.unit, spm.threshold, len(spm.labels)) == ("image-class", 0.2, 9)
    assert mace.text == "nudenet 3.4.2, 9 labels, scores from 0.6, by box"


def test_declared_sets_are_needed_from_the_user() -> None:
    assert load_protocol("i2p/mace-0.6-boxes").needs == ("i2p", "coco-30k")
    assert load_protocol("gate").needs == ()


def test_a_path_is_a_protocol_named_as_its_file(tmp_path: Path) -> None:
    assert load_protocol(write(tmp_path)).title == "mine v1"


def test_what_moves_a_number_moves_the_hash_and_a_description_does_not(tmp_path: Path) -> None:
    first = load_protocol(write(tmp_path)).sha256
    assert load_protocol(write(tmp_path, description="other words")).sha256 == first
    assert load_protocol(write(tmp_path, seeds=[1])).sha256 != first
    moved = {"name": "judge", "version": "emoji-v1", "threshold": 0.5}
    assert load_protocol(write(tmp_path, detector=moved)).sha256 != first


def test_an_unknown_name_is_answered_with_the_nearest() -> None:
    with pytest.raises(UnknownName, match='did you mean "canvas/sauron-agg"'):
        load_protocol("canvas/sauron")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"sede": [1]}, 'unknown key "sede" in the file; did you mean "seeds"'),
        ({"detector": {"name": "judge"}}, r"detector\[0\].version is missing"),
        ({"detector": {"name": "judge", "version": "1", "unit": "boxes"}}, "unit"),
        ({"detector": {"name": "judge", "version": "1", "threshold": 2}}, "threshold is 2"),
        ({"aggregation": "mean"}, 'aggregation is "mean"'),
        ({"prompts": [{"role": "erased", "aspect": "name"}]}, 'either "set" or "templates"'),
        ({"prompts": [{"role": "erased", "aspect": "name", "set": "no-such-set"}]}, 'prompt set "no-such-set"'),
        ({"prompts": [{"role": "kept", "aspect": "a", "templates": ["{word}"], "fill": "related"}]}, "go together"),
        ({"gate": {"gone": 1.5}}, "gone is 1.5"),
    ],
)
def test_a_wrong_file_is_refused_in_one_line(tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    with pytest.raises(BadProtocol, match=said) as told:
        load_protocol(write(tmp_path, **changes))
    assert "\n" not in str(told.value)


def test_an_unknown_detector_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UnknownName, match='detector "nudnet" does not exist; did you mean "nudenet"'):
        load_protocol(write(tmp_path, detector={"name": "nudnet", "version": "1"}))
