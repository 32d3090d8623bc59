"""What was found in a file of annotations: notes, things that were mended, things that are refused."""
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

NOTE, MENDED, REFUSED = 'note', 'mended', 'refused'
LEVELS = (REFUSED, MENDED, NOTE)
EXAMPLES = 3


@dataclass(frozen=True)
class Finding:
    """One kind of finding.

    Args:
        kind (str): What it is, in a few words.
        level (str): 'note' (nothing was changed), 'mended' or 'refused'.
        count (int): Number of entries.
        examples (tuple[str, ...]): The first entries: place, id and value.
        advice (str): What the user can do. Defaults to ''.
    """

    kind: str
    level: str
    count: int
    examples: tuple[str, ...]
    advice: str = ''

    def line(self, examples: int = EXAMPLES) -> str:
        """Return the finding as one line, without the advice, with at most so many examples."""
        entries = '; '.join(self.examples[:examples])
        more = self.count - len(self.examples[:examples])
        if entries and more > 0:
            entries += f'; and {more} more'
        return f'{self.kind}: {self.count}' + (f' ({entries})' if entries else '')


@dataclass
class Judgement:
    """A file of annotations and what was found in it.

    Args:
        path (str): The file.
        content (Any): Its content, mended in memory. None if the file is not a json.
        findings (list[Finding]): What was found. Defaults to an empty list.
    """

    path: str
    content: Any = None
    findings: list[Finding] = field(default_factory=list)

    def add(self, level: str, kind: str, entries: Iterable[str], advice: str = '',
            count: int | None = None) -> None:
        """Add a finding, if there are entries.

        Args:
            level (str): 'note', 'mended' or 'refused'.
            kind (str): What it is, in a few words.
            entries (Iterable[str]): A text for each entry, or for the first ones if `count` is given.
            advice (str): What the user can do. Defaults to ''.
            count (int, optional): Number of entries. Defaults to None: that of `entries`.
        """
        listed = list(entries)
        number = len(listed) if count is None else count
        if number:
            self.findings.append(Finding(kind, level, number, tuple(listed[:EXAMPLES]), advice))

    def of(self, level: str) -> list[Finding]:
        """Return the findings of one level."""
        return [finding for finding in self.findings if finding.level == level]

    @property
    def mended(self) -> bool:
        """Whether the content differs from the file."""
        return bool(self.of(MENDED))

    def accept(self) -> 'Judgement':
        """Return this judgement.

        Raises:
            ValueError: If something is refused; the message has file, entry and what to do.
        """
        refused = self.of(REFUSED)
        if refused:
            told = ' '.join(f'{sentence(finding.line())}. {finding.advice}'.strip()
                            for finding in refused[:3])
            more = len(refused) - 3
            raise ValueError(f'{self.path} cannot be used. {told}'
                             + (f' And {more} more kinds of fault.' if more > 0 else '')
                             + (f' The whole list: python tools/check_annotations.py {self.path}'
                                if self.path.endswith('.json') else ''))
        return self

    def lines(self) -> list[str]:
        """Return one line that counts all that was mended, and one for the notes."""
        name = Path(self.path).name
        return [f'{name}, {title}: ' + '. '.join(sentence(finding.line(1)) for finding in found) + '.'
                for level, title in ((MENDED, 'mended in memory'), (NOTE, 'note'))
                if (found := self.of(level))]

    def plain(self) -> list[dict]:
        """Return the findings as plain values, for a json."""
        return [asdict(finding) for finding in self.findings]


def sentence(text: str) -> str:
    """Return a text with an upper case letter at its beginning."""
    return text[:1].upper() + text[1:]
