"""Random resized crops: boxes within the frame, and what is seen through them."""

import pytest
import torch

from picojepa.clips import CROP_ASPECT, crop, crop_boxes

WHOLE = torch.tensor([[0.0, 0.0, 1.0, 1.0]])


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def ramp(clips: int = 1, size: int = 16) -> torch.Tensor:
    """Clips (B, 2, 3, size, size): channel 0 is the column, channel 1 the row, of a pixel's centre as a share."""
    share = (torch.arange(size) + 0.5) / size
    image = torch.stack([share.expand(size, size), share.unsqueeze(1).expand(size, size)])
    return image.view(1, 2, 1, size, size).expand(clips, 2, 3, size, size).contiguous()


@pytest.mark.parametrize("area", [(0.3, 1.0), (0.05, 0.1), (1.0, 1.0)])
def test_boxes_lie_within_the_frame(area):
    left, top, width, height = crop_boxes(2000, area, generator()).T
    for corner, side in ((left, width), (top, height)):
        assert (corner >= 0).all()
        assert (corner + side <= 1 + 1e-6).all()
        assert (side > 0).all()
    kept, cut = width * height, (width < 1) & (height < 1)
    assert (kept <= area[1] + 1e-6).all()
    assert (kept[cut] >= area[0] - 1e-6).all()
    assert (kept >= area[0] / CROP_ASPECT[1]).all(), "a side as long as the frame is cut there"
    aspect = (width / height)[cut]
    assert ((aspect > CROP_ASPECT[0] - 1e-4) & (aspect < CROP_ASPECT[1] + 1e-4)).all()


def test_boxes_are_spread_over_areas_shapes_and_places():
    left, top, width, height = crop_boxes(4000, (0.1, 0.5), generator()).T
    assert (width * height).quantile(torch.tensor([0.1, 0.5, 0.9])).tolist() == pytest.approx(
        [0.14, 0.3, 0.46], abs=0.02
    )
    assert (width / height).log().mean().item() == pytest.approx(
        torch.tensor(CROP_ASPECT).log().mean().item(), abs=0.02
    )
    for corner, side in ((left, width), (top, height)):
        assert (corner / (1 - side)).mean().item() == pytest.approx(0.5, abs=0.02)
    assert torch.corrcoef(torch.stack([left / (1 - width), top / (1 - height)]))[0, 1].abs() < 0.06


def test_the_same_generator_draws_the_same_boxes():
    first, again, other = (crop_boxes(5, (0.3, 1.0), generator(seed)) for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.allclose(first, other)


def test_the_whole_frame_is_left_as_it_is():
    clips = torch.randn(3, 3, 4, 16, 16, generator=generator())
    torch.testing.assert_close(crop(clips, WHOLE.expand(3, 4)), clips, rtol=0, atol=1e-5)


def test_a_box_of_a_ramp_has_the_values_of_its_place():
    """What is at share s of the cropped frame was at share corner + s * side of the whole one."""
    boxes = torch.tensor([[0.25, 0.5, 0.5, 0.25], [0.1, 0.2, 0.6, 0.7]])
    found, before = crop(ramp(2), boxes), ramp(2)
    assert found.shape == before.shape
    for clip, was, (left, top, width, height) in zip(found, before, boxes, strict=True):
        torch.testing.assert_close(clip[0], left + width * was[0], rtol=0, atol=1e-5)
        torch.testing.assert_close(clip[1], top + height * was[1], rtol=0, atol=1e-5)


def test_a_half_is_cut_exactly():
    """The left half, stretched to the full width, from a frame of two colours."""
    clips = torch.zeros(1, 1, 1, 4, 4)
    clips[..., 2:] = 1.0
    left, right = (crop(clips, torch.tensor([[x, 0.0, 0.5, 1.0]])) for x in (0.0, 0.5))
    assert left.flatten(0, 3).mean(0).tolist() == pytest.approx([0, 0, 0, 0.25])  # the edge is between two pixels
    assert right.flatten(0, 3).mean(0).tolist() == pytest.approx([0.75, 1, 1, 1])


def test_every_frame_of_a_clip_is_cropped_alike_and_every_clip_by_its_own_box():
    still = torch.randn(1, 3, 1, 16, 16, generator=generator()).expand(4, 3, 5, 16, 16)
    found = crop(still, crop_boxes(4, (0.2, 0.6), generator()))
    assert all(torch.equal(found[:, :, 0], found[:, :, t]) for t in range(5))
    assert all(not torch.allclose(found[0], found[i], atol=0.1) for i in range(1, 4))
