"""MkDocs hook that inserts lists of the error messages and of the modules into the pages."""
import ast
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / 'projects/soco'
ABSENT = '…'  # replaces the values that a message is formatted with


def messages() -> Iterator[tuple[str, str]]:
    """Yield the messages of all exceptions that the source code raises with a literal text.

    What annotations are refused for is a message, too. Messages of fewer than three words are left out.

    Yields:
        tuple[str, str]: The file, relative to the repository root, and the text.
    """
    files = [path for folder in ('projects/soco', 'tools')
             for path in sorted((ROOT / folder).rglob('*.py'))]
    for path in files:
        if '.mim' in path.parts:
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding='utf-8'))):
            if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call) and node.exc.args:
                text = max((_text(word) for word in node.exc.args), key=len)
            elif isinstance(node, ast.Call) and _is_refusal(node):
                text = _text(node.args[1])
            else:
                continue
            if len(text.replace(ABSENT, '').split()) >= 3:
                yield path.relative_to(ROOT).as_posix(), ' '.join(text.split())


def _is_refusal(node: ast.Call) -> bool:
    return (isinstance(node.func, ast.Attribute) and node.func.attr == 'add' and len(node.args) > 1
            and isinstance(node.args[0], ast.Name) and node.args[0].id == 'REFUSED')


def _text(node: ast.expr) -> str:
    """Return the literal text of an expression, with `ABSENT` in place of formatted values.

    Args:
        node (ast.expr): The expression.

    Returns:
        str: The text.
    """
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
    """Replace the placeholder comments of a page with the lists.

    MkDocs calls this for every page.

    Args:
        markdown (str): The text of the page.
        **kwargs: Not used.

    Returns:
        str: The text with the lists.
    """
    markdown = re.sub('<!-- all messages -->', _message_list, markdown)
    return re.sub(r'<!-- all modules of (\S+) -->', _module_list, markdown)
