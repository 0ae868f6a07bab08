"""Writes sync-ignore.json: `python tests/vectors/sync_ignore.py`. The answers are written by
hand, from Syncthing's documentation and gitignore(5); only the translated rules are made."""

from __future__ import annotations

import json
from pathlib import Path

from towline.sync.ignore import Ignore, git_rules, syncthing_rules

CASES = [
    {
        "name": "Syncthing: names at any depth, rooted, one star, two stars",
        "stignore": "// a comment\nfoo\n/top\na*c\nx/**/z\n*.o\n",
        "paths": [
            ["foo", True],
            ["foo/bar", True],
            ["sub/foo", True],
            ["sub/foo/bar/baz", True],
            ["food", False],
            ["top", True],
            ["sub/top", False],
            ["abbc", True],
            ["ab/c", False],
            ["x/y/z", True],
            ["x/1/2/z", True],
            ["main.o", True],
            ["sub/main.o", True],
            ["main.oo", False],
        ],
    },
    {
        "name": "Syncthing: the first that matches decides",
        "stignore": "!frobble\n!quuz\n(?i)FOO\n*2\nqu*\n",
        "paths": [
            ["foo", True],
            ["FoO", True],
            ["foofoo", False],
            ["bar2", True],
            ["frobble2", True],
            ["frobble", False],
            ["quuz", False],
            ["quux", True],
            ["sub/quuz", False],
        ],
    },
    {
        "name": "Syncthing: a trailing slash is what is below, groups, braces, a backslash",
        "stignore": "only-below/\n[ab]x\n[!a-c]y\n{one,two}.txt\nlit\\*eral\n?\n(?d).DS_Store\n",
        "paths": [
            ["only-below", False],
            ["only-below/x1", True],
            ["ax", True],
            ["cx", False],
            ["dy", True],
            ["by", False],
            ["one.txt", True],
            ["two.txt", True],
            ["three.txt", False],
            ["lit*eral", True],
            ["literal", False],
            ["q", True],
            ["ü", True],
            ["qq", False],
            ["deep/.DS_Store", True],
        ],
    },
    {
        "name": "Syncthing: an include, and back in what is ignored",
        "stignore": "!/build/keep.txt\n#include more\n",
        "included": {"more": "/build\n/other\n"},
        "paths": [
            ["build/keep.txt", False],
            ["build/gone.txt", True],
            ["other", True],
            ["sub/other", False],
        ],
    },
    {
        "name": "gitignore: the last decides, anchors, folders only",
        "towlineignore": "*.log\n!important.log\n/root-only\nbuild/\ndoc/*.txt\n# comment\n"
        "\\#name\n",
        "paths": [
            ["a.log", True],
            ["x/a.log", True],
            ["important.log", False],
            ["x/important.log", False],
            ["root-only", True],
            ["x/root-only", False],
            ["build/", True],
            ["x/build/", True],
            ["build", False],
            ["build/below", True],
            ["doc/a.txt", True],
            ["doc/x/a.txt", False],
            ["#name", True],
        ],
    },
    {
        "name": "gitignore: two stars, groups, and no way back from an ignored folder",
        "towlineignore": "**/cache\nlogs/**\na/**/b\n[0-9]*\n[!x-z].c\n/node_modules\n"
        "!/node_modules/keep\ntrailing   \nab**cd\n",
        "paths": [
            ["cache", True],
            ["x/y/cache", True],
            ["logs", False],
            ["logs/x", True],
            ["logs/x/y", True],
            ["a/b", True],
            ["a/x/y/b", True],
            ["9lives", True],
            ["a.c", True],
            ["y.c", False],
            ["node_modules/keep", True],
            ["trailing", True],
            ["ab12cd", True],
            ["ab/cd", False],
        ],
    },
    {
        "name": "version control and our own names, whatever the rules say",
        "stignore": "!.git\n!.towline-x\n",
        "paths": [
            [".git", True],
            [".GIT/config", True],
            ["sub/.git", True],
            ["sub/.hg/store", True],
            [".gitignore", False],
            [".towline-abc", True],
            [".towlineignore", True],
            ["sub/.towlineignore", True],
            [".stignore", True],
        ],
    },
    {
        "name": "special characters of expressions mean themselves",
        "stignore": "a.b\n(x)+\n^s$\n",
        "paths": [
            ["a.b", True],
            ["aXb", False],
            ["(x)+", True],
            ["x", False],
            ["^s$", True],
            ["line\nbreak/a.b", True],
        ],
    },
]


def rules_of(case: dict) -> Ignore:
    included = case.get("included", {})
    return Ignore(
        first=syncthing_rules(case.get("stignore", ""), included=included.__getitem__),
        last=git_rules(case.get("towlineignore", "")),
    )


def made() -> list[dict]:
    return [{**case, "rules": json.loads(rules_of(case).to_wire())} for case in CASES]


if __name__ == "__main__":
    text = json.dumps(made(), indent=1, ensure_ascii=False) + "\n"
    Path(__file__).with_name("sync-ignore.json").write_text(text)
