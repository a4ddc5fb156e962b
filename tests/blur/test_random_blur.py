"""What every random blur promises."""

from __future__ import annotations

import pytest
import torch

from reblurkit.blur import (
    DefocusBlur,
    MotionBlur,
    MovingObjectBlur,
    RandomBlur,
    RealisticBlur,
    ShakeBlur,
    ShuffledDegradation,
)
from reblurkit.errors import ArgumentError, ShapeError

BLURS = [MotionBlur(largest=5), ShakeBlur(9, 0.5), ShakeBlur(1), MotionBlur(largest=4, linear=False), DefocusBlur(3)]
ALL = [*BLURS, MovingObjectBlur(largest=4), RealisticBlur(ShakeBlur(5)), ShuffledDegradation()]
every_blur = pytest.mark.parametrize("blur", ALL, ids=repr)
every_filter = pytest.mark.parametrize("blur", BLURS, ids=repr)


@pytest.fixture
def threads():
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


@every_blur
def test_an_image_does_not_depend_on_its_batch(blur, threads):
    """Nor on the number of threads; sizes at which vectors of the processor do not come out even."""
    image, drawn = torch.rand(7, 3, 61, 83), blur.draw(7)
    blurry = blur.blur(image, drawn)
    for number in (1, 2):
        threads(number)
        for rows in (slice(0, 1), slice(1, 3), slice(2, 7), [6, 0, 3]):
            assert torch.equal(blur.blur(image[rows], drawn[rows]), blurry[rows])


@every_blur
def test_a_batch_draws_what_single_images_draw(blur):
    one, other = (torch.Generator().manual_seed(3) for _ in range(2))
    torch.testing.assert_close(
        blur.draw(3, one), torch.cat([blur.draw(1, other) for _ in range(3)]), rtol=0, atol=1e-12
    )
    assert torch.equal(one.get_state(), other.get_state())


@every_blur
def test_a_call_is_drawing_and_blurring(blur):
    image = torch.rand(2, 3, 16, 20)
    one, other = (torch.Generator().manual_seed(3) for _ in range(2))
    assert torch.equal(blur(image, one), blur.blur(image, blur.draw(2, other)))
    assert not torch.equal(blur.draw(1, one), blur.draw(1, one)) or blur.border == 0


@every_filter
def test_pixels_within_the_border_see_only_the_image(blur):
    """What lies beyond changes nothing inside."""
    image, drawn, border = torch.rand(2, 3, 24, 26), blur.draw(2), blur.border
    wide = torch.nn.functional.pad(image, [border] * 4)
    if not isinstance(blur, MotionBlur):  # a motion is stretched over the image, so that it changes with the size
        inner = (..., slice(border, 24 - border), slice(border, 26 - border))
        ours = blur.blur(wide, drawn)[..., border : border + 24, border : border + 26]
        assert torch.equal(ours[inner], blur.blur(image, drawn)[inner])
    else:
        longest = max(flow.abs().max() for flow in blur.flows(drawn, (24, 26)))
        assert longest <= border


@every_blur
def test_a_seed_makes_a_sequence_and_leaves_the_global_state_alone(blur):
    kind = type(blur)
    state, image = torch.get_rng_state(), torch.rand(1, 3, 8, 8, generator=torch.Generator())
    first, second = kind(seed=5), kind(seed=5)
    assert all(torch.equal(first(image), second(image)) for _ in range(3))
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(1)
    expected = kind()(image)
    torch.manual_seed(1)
    assert torch.equal(kind()(image), expected)


@every_blur
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_types_are_kept(blur, dtype):
    image, drawn = torch.rand(1, 3, 16, 16), blur.draw(1)
    blurry = blur.blur(image.to(dtype), drawn)
    assert blurry.dtype == dtype
    if isinstance(blur, RandomBlur):  # noise and compression make much of little
        torch.testing.assert_close(blurry.float(), blur.blur(image, drawn), rtol=0, atol=0.03)


@every_blur
def test_wrong_input(blur):
    with pytest.raises(ShapeError, match=r"expected .*one draw .*, but came .*3"):
        blur.blur(torch.rand(2, 3, 8, 8), blur.draw(3))
    with pytest.raises(ArgumentError, match=r"`seed` must be a whole number of 64 bits \(int\) or None, but is 'a'"):
        type(blur)(seed="a")
    if getattr(blur, "linear", False):
        with pytest.raises(ShapeError, match="linear light needs RGB or grey images, but came 2 channels"):
            blur(torch.rand(1, 2, 8, 8))
