"""LPIPS equals the formula in float64 over a plain AlexNet, and the package `lpips` where it is installed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor, nn

from erase.config.prompts import Row
from erase.errors import PickleRefused, ScoreFailed
from erase.evaluate.detect import Given, Key
from erase.evaluate.metrics.lpips import Lpips, distances
from erase.evaluate.metrics.quality import perceptual_distances
from erase.evaluate.protocol import Case, load_protocol

CHANNELS = (64, 192, 384, 256, 256)


def alexnet() -> nn.Sequential:
    """The convolutions of AlexNet as Krizhevsky (2014) has them, numbered as torchvision does."""
    return nn.Sequential(
        nn.Conv2d(3, 64, 11, stride=4, padding=2),
        nn.ReLU(),
        nn.MaxPool2d(3, 2),
        nn.Conv2d(64, 192, 5, padding=2),
        nn.ReLU(),
        nn.MaxPool2d(3, 2),
        nn.Conv2d(192, 384, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(384, 256, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(256, 256, 3, padding=1),
        nn.ReLU(),
    )


@pytest.fixture(scope="module")
def network() -> nn.Sequential:
    return random_alexnet()


@pytest.fixture(scope="module")
def weights(network: nn.Sequential) -> dict[str, Tensor]:
    return lpips_weights(network)


def random_alexnet() -> nn.Sequential:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return alexnet().double()


def lpips_weights(network: nn.Sequential) -> dict[str, Tensor]:
    """As the package writes them: a convolution's number in AlexNet after its slice, and the layers' own weights."""
    generator = torch.Generator().manual_seed(1)
    found = {}
    for part, number in enumerate((0, 3, 6, 8, 10), start=1):
        for name in ("weight", "bias"):
            found[f"net.slice{part}.{number}.{name}"] = getattr(network[number], name).detach().float().clone()
    for number, channels in enumerate(CHANNELS):
        found[f"lin{number}.model.1.weight"] = torch.rand(1, channels, 1, 1, generator=generator)
    return found


@pytest.fixture(scope="module")
def file(weights: dict[str, Tensor], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("lpips") / "lpips.safetensors"
    save_file(weights, path)
    return path


def pictures(count: int, seed: int, side: int = 64) -> list[Image.Image]:
    rng = np.random.default_rng(seed)
    return [Image.fromarray(rng.integers(0, 255, (side, side, 3), dtype=np.uint8)) for _ in range(count)]


def tensor(picture: Image.Image) -> Tensor:
    return torch.tensor(np.asarray(picture) / 127.5 - 1).permute(2, 0, 1)[None]


@torch.inference_mode()
def by_the_formula(network: nn.Sequential, weights: dict[str, Tensor], x: Tensor, y: Tensor) -> float:
    """Place by place in float64: w . (f(x)/|f(x)| - f(y)/|f(y)|)^2, its mean over places, summed over ReLUs."""
    shift = torch.tensor([-0.030, -0.088, -0.188]).double().view(1, 3, 1, 1)
    scale = torch.tensor([0.458, 0.448, 0.450]).double().view(1, 3, 1, 1)
    left, right, total, layer = (x - shift) / scale, (y - shift) / scale, 0.0, 0
    for module in network:
        left, right = module(left), module(right)
        if isinstance(module, nn.ReLU):
            w = weights[f"lin{layer}.model.1.weight"].double().flatten()
            places = [(i, j) for i in range(left.shape[2]) for j in range(left.shape[3])]
            for i, j in places:
                a, b = left[0, :, i, j], right[0, :, i, j]
                apart = a / (a.norm() + 1e-10) - b / (b.norm() + 1e-10)
                total += float(w @ apart**2) / len(places)
            layer += 1
    assert layer == 5
    return total


def test_the_distance_is_that_of_the_formula(network: nn.Sequential, weights: dict[str, Tensor], file: Path) -> None:
    pairs = list(zip(pictures(3, 1), pictures(3, 2), strict=True))
    found = Lpips(file)(pairs)
    expected = [by_the_formula(network, weights, tensor(one), tensor(other)) for one, other in pairs]
    assert found == pytest.approx(expected, abs=1e-5)
    assert len(set(found)) == 3


def test_a_picture_is_no_way_from_itself_and_as_far_there_as_back(file: Path) -> None:
    one, other = pictures(2, 3)
    assert Lpips(file)([(one, one)]) == [0.0]
    there, back = Lpips(file)([(one, other), (other, one)])
    assert there == pytest.approx(back, rel=1e-6)
    assert Lpips(file)([]) == []


def test_pictures_are_shrunk_to_64_pixels_first(file: Path) -> None:
    large = pictures(2, 4, side=128)
    small = [picture.resize((64, 64), Image.Resampling.BILINEAR) for picture in large]
    assert Lpips(file)([(large[0], large[1])]) == Lpips(file)([(small[0], small[1])])
    assert Lpips(file)([(large[0], large[1])], side=128) != Lpips(file)([(small[0], small[1])])


@pytest.mark.filterwarnings("ignore")  # the package calls torchvision in a way that is on its way out
def test_the_package_gives_the_same(weights: dict[str, Tensor]) -> None:
    package: Any = pytest.importorskip("lpips")
    theirs = package.LPIPS(net="alex", pnet_rand=True, pretrained=False, verbose=False)
    theirs.load_state_dict(weights, strict=False)
    x, y = (torch.cat([tensor(one) for one in pictures(2, seed)]).float() for seed in (5, 6))
    with torch.inference_mode():
        assert distances(x, y, weights).tolist() == pytest.approx(theirs(x, y).flatten().tolist(), abs=1e-5)


def test_other_files_are_refused_and_told_how_to_make_one(tmp_path: Path, weights: dict[str, Tensor]) -> None:
    pair = [(pictures(1, 7)[0], pictures(1, 8)[0])]
    with pytest.raises(PickleRefused, match="is a pickle"):
        Lpips(tmp_path / "alex.pth")(pair)
    with pytest.raises(ScoreFailed, match="cannot be read"):
        Lpips(tmp_path / "none.safetensors")(pair)
    save_file({name: one for name, one in weights.items() if name != "lin3.model.1.weight"}, tmp_path / "a.safetensors")
    with pytest.raises(ScoreFailed, match=r"it lacks lin3\.model\.1\.weight; make it by: python -c"):
        Lpips(tmp_path / "a.safetensors")(pair)


def cases_and_images(folder: Path) -> tuple[list[Case], dict[str, dict[Key, Path]]]:
    roles = ("erased", "erased", "kept")
    cases = [Case(Row(str(number), 0), role, "name", "x") for number, role in enumerate(roles)]  # type: ignore[arg-type]
    images: dict[str, dict[Key, Path]] = {"before": {}, "after": {}}
    for side, seed in (("before", 10), ("after", 11)):
        for number, picture in enumerate(pictures(3, seed)):
            images[side][str(number), 0] = folder / f"{side}{number}.png"
            picture.save(folder / f"{side}{number}.png")
    return cases, images


def test_lpips_e_is_of_the_erased_and_lpips_u_of_the_rest(tmp_path: Path, file: Path) -> None:
    value = yaml.safe_load((Path(__file__).parents[3] / "protocols/lpips-e-u.yaml").read_text(encoding="utf-8"))
    assert value["scorers"] == ["lpips"]
    protocol = load_protocol("lpips-e-u")
    cases, images = cases_and_images(tmp_path)
    totals = perceptual_distances(protocol, cases, images, given=Given({"lpips": file}))
    single = Lpips(file)(list(zip(pictures(3, 10), pictures(3, 11), strict=True)))
    e, u = (single[0] + single[1]) / 2, single[2]
    assert [one.after for one in totals] == pytest.approx([e, u, e - u], abs=1e-6)
    assert [one.better for one in totals] == ["higher", "lower", "higher"]
    with pytest.raises(ScoreFailed, match="give it as lpips=PATH"):
        perceptual_distances(protocol, cases, images, given=Given())
    images["after"]["1", 0].unlink()
    with pytest.raises(ScoreFailed, match="1 of 2 pairs are missing"):
        perceptual_distances(protocol, cases, images, given=Given({"lpips": file}))
