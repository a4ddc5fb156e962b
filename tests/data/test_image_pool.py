from __future__ import annotations

import torch

from reblurkit.data.image_pool import ImagePool


def numbered(*numbers):
    return torch.tensor(numbers, dtype=torch.float32).view(-1, 1, 1, 1).expand(-1, 3, 2, 2)


def test_until_it_is_full_images_come_back():
    pool = ImagePool(5)
    assert torch.equal(pool.exchange(numbered(0, 1, 2)), numbered(0, 1, 2))
    assert torch.equal(pool.exchange(numbered(3, 4)), numbered(3, 4))
    assert torch.equal(torch.stack(pool.images), numbered(*range(5)))


def test_then_half_of_them_are_exchanged_for_earlier_ones():
    pool, new, ages = ImagePool(5), 0, []
    pool.exchange(numbered(*range(5)))
    for number in range(5, 2005):
        (got,) = pool.exchange(numbered(number))[:, 0, 0, 0].tolist()
        new += got == number
        if got != number:
            ages.append(number - got)
        assert len(pool.images) == 5
    assert 900 < new < 1100
    assert 8 < sum(ages) / len(ages) < 12  # an image is drawn once in 2 * 5 steps


def test_without_a_pool_images_pass():
    pool = ImagePool(0)
    assert torch.equal(pool.exchange(numbered(1, 2)), numbered(1, 2))
    assert pool.images == []


def test_images_are_kept_without_their_graph():
    pool = ImagePool(1)
    assert not pool.exchange(numbered(1).clone().requires_grad_()).requires_grad
