"""Hook of mkdocs: what the pages have from the source, the error messages and the modules."""
import ast
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / 'projects/soco'
ABSENT = '…'  # stands for what a message fills in


def messages() -> Iterator[tuple[str, str]]:
    """Every message that is raised with a text of its own: the file, and the text."""
    files = [path for folder in ('projects/soco', 'tools')
             for path in sorted((ROOT / folder).rglob('*.py'))]
    for path in files:
        if '.mim' in path.parts:
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding='utf-8'))):
            if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call) and node.exc.args:
                text = max((_text(word) for word in node.exc.args), key=len)
                if len(text.replace(ABSENT, '').split()) >= 3:
                    yield path.relative_to(ROOT).as_posix(), ' '.join(text.split())


def _text(node: ast.expr) -> str:
    """The literal text of an expression, with a mark for what is filled in."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return ''.join(_text(value) for value in node.values)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        return _text(node.left) + _text(node.right)
    return ABSENT


def _message_list(found: re.Match) -> str:
    lines, last = [], None
    for file, text in messages():
        if file != last:
            lines += ['', f'**{file}**', '']
            last = file
        lines.append(f'- `{text.replace("`", "’")}`')
    return '\n'.join(lines)


def _module_list(found: re.Match) -> str:
    names = [path.relative_to(ROOT).with_suffix('').as_posix().replace('/', '.')
             for path in sorted((PACKAGE / found[1]).glob('*.py')) if path.stem != '__init__']
    return '\n\n'.join(f'::: {name}' for name in names)


def on_page_markdown(markdown: str, **kwargs) -> str:
    """Put the lists in place of their marks."""
    markdown = re.sub('<!-- all messages -->', _message_list, markdown)
    return re.sub(r'<!-- all modules of (\S+) -->', _module_list, markdown)
