"""The checker's tests share a sound run."""

import pytest

from tests.streams.chaos.world import Build, Lab, Run, spec_and_bundle


@pytest.fixture(scope="package")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Lab:
    folder = tmp_path_factory.mktemp("chaos")
    spec, bundle = spec_and_bundle(folder)
    return Lab(spec, bundle, folder, Run(spec, bundle, Build()).go())
