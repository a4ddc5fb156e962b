"""Short class names in configurations: the parser finds a class by its bare name once the class has been imported."""

from __future__ import annotations

from reblurkit import blur, losses, metrics, models, plugins


def import_named_classes() -> None:
    """Import all public classes of the packages whose classes a configuration may name without their package."""
    for package in (blur, losses, metrics, models, plugins):
        for name in package.__all__:
            getattr(package, name)
