"""What `leukotree doctor` looks at; each check gives findings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

State = Literal["ok", "warn", "FAIL"]


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at."""

    state: State
    what: str
    measured: str
    mend: str = ""
    """What to do; empty where nothing is to be done."""
    certain: bool = True
    """Whether a FAIL means that no job can do its work; else it depends on what cannot be seen from here."""

    def line(self) -> str:
        """`FAIL  partition: none is named 'gpu'; ...`"""
        return f"{self.state:<4}  {self.what}: {self.measured}" + (f"; {self.mend}" if self.mend else "")
