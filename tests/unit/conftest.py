"""What all unit tests share."""

from collections.abc import Iterator

import certifi
import pytest

from tests.kit.certificates import TestAuthority


@pytest.fixture(scope="session", autouse=True)
def _few_certificates(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Let each HTTP client read one authority: reading the world's takes each one 18 ms."""
    file = tmp_path_factory.mktemp("certificates") / "authority.pem"
    file.write_bytes(TestAuthority().pem)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(certifi, "where", lambda: str(file))
        yield
