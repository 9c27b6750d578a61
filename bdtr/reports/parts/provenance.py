"""How the report was made."""

from __future__ import annotations

import datetime as dt
import hashlib
import json

import pandas as pd

from bdtr.reports.blocks import Part, code, folded, table, text
from bdtr.reports.case import Case
from bdtr.trial.protocol import protocol_to_text

__all__ = ["making", "specification_hash"]


def specification_hash(case: Case) -> str:
    """SHA-256 of the trial, the first 16 hexadecimal digits."""
    words = json.dumps(case.fit.trial.to_dict(), sort_keys=True, default=str)
    return hashlib.sha256(words.encode()).hexdigest()[:16]


def making(case: Case) -> Part:
    """Seed, versions, hashes, and the command that makes the report again."""
    fit, choices = case.fit, case.choices
    rows = [
        ("command", choices.command or "–"),
        ("random seed", str(fit.settings.random_seed)),
        ("data hash (SHA-256, columns used)", fit.data_hash),
        ("specification hash (SHA-256)", specification_hash(case)),
        ("versions", ", ".join(f"{name} {version}" for name, version in fit.versions.items())),
        ("written", dt.datetime.now(dt.UTC).strftime("%Y-%m-%d %H:%M UTC")),
    ]
    frame = pd.DataFrame(rows, columns=["what", "value"]).set_index("what")
    own = [s.action for s in fit.trial.stages if s.model is not None]
    words = (
        text(
            f"Stages with models of the authors' own ({', '.join(own)}) cannot be written to a file."
        )
        if own
        else code(protocol_to_text(fit.trial))
    )
    return Part(
        "making", "How this was made", [table(frame), folded("The trial as a file", [words])]
    )
