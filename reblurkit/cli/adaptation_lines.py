"""What is said of an adaptation, image by image, and of the reblurring network behind it."""

from __future__ import annotations

import math
from collections.abc import Mapping

from reblurkit.adaptation.changes import AdaptationChange, BlurAdaptationChange
from reblurkit.adaptation.own_blur import AdaptToBlurOptions
from reblurkit.cli.metric_names import short_number

_SPOILS = 25.0  # dB of preserved_psnr: sharp images are not left as they are; trained networks have 30 to 40
_RISEN_DISTANCE = 1.5  # of the reblurred image from the photo, which adaptation to its blur is to lower
_UNSEEN = 0.1  # mean change in grey levels of 255; rounding to 8 bits alone changes as much


def adaptation_line(change: AdaptationChange | BlurAdaptationChange) -> str:
    """What adaptation did to an image, and what is wrong with it."""
    if isinstance(change, BlurAdaptationChange):
        return _blur_line(change)
    line = (
        f"self-reblur loss {change.before:.5f} before, {change.after:.5f} after adaptation; "
        f"mean change {change.change:.2f} grey levels"
    )
    if not math.isfinite(change.after):
        return f"{line}; the image is not adapted: steps of a smaller --adapt-lr may be (default: 3e-6)"
    if change.is_poor:
        return f"{line}; the reblurring network makes another image of it, as one does that has learned too little"
    if change.has_risen:
        return f"{line}; the loss rose instead of falling: take a smaller --adapt-lr (default: 3e-6)"
    if change.change < _UNSEEN:
        return f"{line}, which nobody sees: more steps or a larger rate change more"
    return line


def reblurring_line(metrics: Mapping[str, float]) -> str | None:
    """What is known of a reblurring network from the validation in its training; None if nothing is.

    Args:
        metrics: Of its checkpoint, see :func:`reblurkit.plugins.checkpoint_metrics`.

    Example:
        >>> reblurring_line({"reblur_psnr": 33.4, "reblur_psnr_deblurred": 29.37, "preserved_psnr": 39.2})
        'the reblurring network in its validation: reblur_psnr 33.40 dB (29.37 without it), preserved_psnr 39.20 dB'
        >>> reblurring_line({"preserved_psnr": 18.3})
        '...: preserved_psnr 18.30 dB; it is poor, as it changes sharp images: adapted images may be worse than others'
    """
    reblurred, without = metrics.get("reblur_psnr"), metrics.get("reblur_psnr_deblurred")
    preserved = metrics.get("preserved_psnr")
    found, poor = [], []
    if reblurred is not None and without is not None:
        found.append(f"reblur_psnr {short_number(reblurred)} dB ({short_number(without)} without it)")
        if reblurred <= without:
            poor.append("brings back no blur")
    if preserved is not None:
        found.append(f"preserved_psnr {short_number(preserved)} dB")
        if preserved < _SPOILS:
            poor.append("changes sharp images")
    if not found:
        return None
    warning = f"; it is poor, as it {' and '.join(poor)}: adapted images may be worse than others" if poor else ""
    return f"the reblurring network in its validation: {', '.join(found)}{warning}"


def _blur_line(change: BlurAdaptationChange) -> str:
    """What adaptation to its own blur did to an image."""
    line = (
        f"blurred again, {255 * change.before:.2f} grey levels from the photo before adaptation to its blur and "
        f"{255 * change.after:.2f} after; mean change {change.change:.2f} grey levels"
    )
    if not math.isfinite(change.after):
        return f"{line}; the image is not adapted: steps of a smaller --adapt-lr may be (default: 1e-4)"
    if not change.adapted:
        usual = AdaptToBlurOptions
        why = (
            f"its quarters agree on one by {change.agreement:.2f} of 1, {usual.least_agreement} is asked"
            if change.agreement < usual.least_agreement
            else f"what was found brings back {change.explained:.0%} of what the network removed, "
            f"{usual.least_explained:.0%} is asked"
        )
        return f"its blur was not found: {why}; left as the network makes it"
    if change.after > _RISEN_DISTANCE * change.before:
        return f"{line}; the distance rose instead of falling: take a smaller --adapt-lr (default: 1e-4)"
    if change.change < _UNSEEN:
        return f"{line}, which nobody sees: more steps or a larger rate change more"
    return line
