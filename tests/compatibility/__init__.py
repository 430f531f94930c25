"""Libraries in their oldest and newest supported version. What ``five`` asserts is shown as a test's own."""

import pytest

pytest.register_assert_rewrite("tests.compatibility.five")
