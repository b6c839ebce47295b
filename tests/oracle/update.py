"""Ask the Go modules anew: ``python -m tests.oracle.update``. It needs Go 1.26.

It writes answers.jsonl, which tests/unit/test_oracle.py reads.
"""

from __future__ import annotations

import itertools
import json
import subprocess
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
ANSWERS = HERE / "answers.jsonl"

SCHEDULES = (
    *(
        "30 2 * * *",
        "0 3 * * *",
        "30 1 * * *",
        "0 2 * * *",
        "0 0 * * *",
        "15 0 * * *",
        "*/20 * * * *",
    ),
    *("0 * * * *", "30 1-3 * * *", "0 */2 * * *", "5/15 2 * * *", "0 0 */1 * 1", "0 0 */2 * 1"),
    *("0 0 * */1 1", "0 0 1 * 1", "0 0 ? * 1", "0 0 1 * ?", "0 0 1,15 * mon,FRI", "0 0 * * */1"),
    *("0 0 29 2 *", "0 0 31 * *", "0 0 31 2 *", "0 0 1 1 *", "59 23 31 12 *", "0 12 * feb-apr sun"),
    *("0 0 * * 0-6", "0 0 1-31 * 5", "0 0 */1,13 * 5", "0 2 * 3,10,11 0", "30 2 8-14 3 */7"),
    *("@yearly", "@annually", "@monthly", "@weekly", "@daily", "@midnight", "@hourly"),
    *("0/1 2 * * *", "*/61 2 * * *", "0 0 2/09 * *", "0 0 * jan-MAR ?", "10-50/7 1,2,3 * * 6"),
)
ZONES = (
    *("Etc/UTC", "Europe/Berlin", "Europe/London", "America/New_York", "Australia/Lord_Howe"),
    *("Asia/Kathmandu", "Africa/Casablanca", "America/St_Johns", "Antarctica/Troll"),
)
WITHOUT_MIDNIGHT = ("America/Sao_Paulo", "America/Havana", "Asia/Beirut", "Pacific/Apia")
"""Where a day has begun at one o'clock, or was left out."""
MOMENTS = (
    *(
        "2027-03-27T00:10:00Z",
        "2027-10-30T00:10:59Z",
        "2026-11-29T12:10:00Z",
        "2027-03-13T11:00:00Z",
    ),
    *(
        "2027-11-06T22:59:59Z",
        "2018-11-02T20:00:00Z",
        "2018-02-16T20:00:00Z",
        "2011-12-28T09:00:00Z",
    ),
    *(
        "2027-04-02T12:00:00Z",
        "2027-10-02T12:00:00Z",
        "2027-12-31T23:59:00Z",
        "2028-02-28T00:00:00Z",
    ),
)

_NAMES = (
    *(
        "r",
        "r1",
        "a/b",
        "A",
        "a/B",
        "A/b",
        "A/B",
        "library/python",
        "a_b",
        "a__b",
        "a___b",
        "a-b",
        "a--b",
    ),
    *(
        "a.b",
        "a..b",
        "-a",
        "a-",
        "_a",
        "a/_b",
        "a//b",
        "/a",
        "a/",
        "",
        "é",
        "a b",
        "a.B/c",
        "a_b.c/d",
    ),
    *(
        "localhost/a",
        "LOCALHOST/a",
        "example.com/a/b/c",
        "example.com/A",
        "example.com",
        "Example.com/a",
    ),
    *("example.com:5000/a", "example.com:0/a", "example.com:65535/a", "example.com:/a", "h:80/a"),
    *("[::1]/a", "[::1]:5000/a", "[2001:db8::1]:5000/a/b", "10.0.0.1:5000/a", "a-.b/c", "-a.b/c"),
    *(
        "0" * 64,
        "a" * 63,
        "f" * 65,
        "g" * 64,
        "docker.io/a",
        "index.docker.io/library/a",
        "https://h/a",
    ),
)
_ENDS = (
    *(
        "",
        ":1",
        ":v1.0-b_2",
        ":",
        ":-1",
        ":.1",
        ":_1",
        ":1:2",
        ":A",
        ":" + "a" * 128,
        ":" + "a" * 129,
    ),
    *(
        "@sha256:" + "a" * 64,
        "@sha256:" + "A" * 64,
        "@sha256:" + "a" * 63,
        "@sha256:",
        "@",
        ":1@sha256:" + "0" * 64,
    ),
    *(
        "@sha512:" + "a" * 128,
        "@sha384:" + "a" * 96,
        "@md5:" + "a" * 32,
        "@sha256:" + "a" * 65,
        ":é",
        ":a b",
    ),
)


def questions() -> dict[str, Any]:
    """Return everything that is asked."""
    return {
        "schedules": [
            {"schedule": s, "zone": z, "after": m, "count": 3}
            for s, z, m in (
                # A fifth of them, so that the file stays small.
                *list(itertools.product(SCHEDULES, ZONES, MOMENTS))[::5],
                *itertools.product(SCHEDULES[:6], WITHOUT_MIDNIGHT, MOMENTS[5:8]),
            )
        ],
        "images": [{"image": f"{n}{e}"} for n, e in itertools.product(_NAMES, _ENDS)],
    }


def main() -> None:
    """Ask, and keep the answers: a line each."""
    done = subprocess.run(
        ["go", "run", "."],
        cwd=HERE,
        input=json.dumps(questions()),
        capture_output=True,
        text=True,
        check=True,
        timeout=300,
    )
    answers = json.loads(done.stdout)
    lines = [json.dumps(each, ensure_ascii=False) for each in answers["schedules"]]
    lines += [json.dumps(each, ensure_ascii=False) for each in answers["images"]]
    ANSWERS.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
