"""What a check of `leukotree doctor` answers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

State = Literal["ok", "warn", "FAIL"]


@dataclass(frozen=True)
class Finding:
    """One thing that was checked."""

    state: State
    what: str
    measured: str
    fix: str = ""
    """What to do; empty where nothing is to be done."""
    certain: bool = True
    """Whether a FAIL means that no job can do its work. If not, it depends on what cannot be seen from
    here."""

    def line(self) -> str:
        """One line for people, such as `FAIL  partition: none is named 'gpu'; ...`."""
        return f"{self.state:<4}  {self.what}: {self.measured}" + (f"; {self.fix}" if self.fix else "")
