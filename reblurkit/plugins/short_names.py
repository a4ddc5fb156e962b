"""Short class names in configurations: the parser finds a class by its bare name once the class has been imported."""

from __future__ import annotations

from reblurkit import blur, losses, metrics, models, plugins


def named_classes() -> dict[str, type]:
    """All public classes of the packages whose classes a configuration may name without their package, imported."""
    packages = (blur, losses, metrics, models, plugins)
    public = {name: getattr(package, name) for package in packages for name in package.__all__}
    return {name: value for name, value in public.items() if isinstance(value, type)}
