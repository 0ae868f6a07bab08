from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from towline._kit.paths import folders, private
from towline.errors import TowlineError


def test_the_defaults_on_linux() -> None:
    found = folders({"HOME": "/home/ada", "XDG_RUNTIME_DIR": "/run/user/7"}, platform="linux")
    assert found.config == Path("/home/ada/.config/towline")
    assert found.state == Path("/home/ada/.local/state/towline")
    assert found.cache == Path("/home/ada/.cache/towline")
    assert found.runtime == Path("/run/user/7/towline")


def test_the_variables_count_and_relative_ones_do_not() -> None:
    environ = {"HOME": "/home/ada", "XDG_CONFIG_HOME": "/c", "XDG_CACHE_HOME": "relative"}
    found = folders(environ, platform="linux")
    assert found.config == Path("/c/towline")
    assert found.cache == Path("/home/ada/.cache/towline")


def test_without_a_runtime_folder_it_is_the_users_own_in_the_temporary_one() -> None:
    assert folders({"HOME": "/h"}, platform="linux").runtime.name == f"towline-{os.getuid()}"


def test_a_folder_is_made_private(tmp_path: Path) -> None:
    folder = private(tmp_path / "a" / "b")
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    folder.chmod(0o755)
    assert stat.S_IMODE(private(folder).stat().st_mode) == 0o700


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "target").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "target")
    with pytest.raises(TowlineError, match="is not a folder"):
        private(tmp_path / "link")
    (tmp_path / "file").write_text("")
    with pytest.raises(TowlineError, match="cannot be made"):
        private(tmp_path / "file")
