"""Episodes run in real sandboxes: the base image must be there."""

import pytest

from tests.envs.conftest import base_image  # noqa: F401


@pytest.fixture(autouse=True)
def image(base_image: str) -> str:  # noqa: F811
    return base_image
