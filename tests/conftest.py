"""What every test has at hand."""

import pytest

pytest.register_assert_rewrite("tests.kit")
pytest_plugins = ["tests.kit.fixtures"]
