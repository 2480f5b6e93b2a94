"""Makes the reference pages of the site from what the program is made of, so that they can't be old."""

import ast
import importlib
import inspect
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer
from google.protobuf.descriptor_pb2 import (
    FieldDescriptorProto,
    FileDescriptorProto,
    FileDescriptorSet,
)
from grpc_tools import protoc
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parent.parent
SCHEMAS = ROOT / "proto"
SHOWN_SCHEMAS = ("node", "transactions", "inference", "receipts", "runtime")
_SERVICES, _MESSAGES, _ENUMS, _FIELDS, _METHODS, _VALUES, _NESTED = 6, 4, 5, 2, 2, 2, 3
"""Numbers of the fields of the descriptors themselves: paths in source information are made of them."""


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the generated pages."""
    for name, make in (
        ("grpc", grpc_page),
        ("python", python_page),
        ("cli", cli_page),
        ("config", config_page),
    ):
        files.append(File.generated(config, f"reference/{name}.md", content=make()))
    return files


def grpc_page() -> str:
    """Services, methods and messages with the schemas' own comments."""
    lines = [
        "# gRPC",
        "",
        "Made from `proto/assay/v1`. Reflection and health are served beside it.",
        "",
    ]
    for schema in _schemas():
        comments = {
            tuple(place.path): place.leading_comments.strip() or place.trailing_comments.strip()
            for place in schema.source_code_info.location
        }
        for number, service in enumerate(schema.service):
            lines += [f"## {service.name}", "", comments.get((_SERVICES, number), ""), ""]
            for at, method in enumerate(service.method):
                sent = "stream " * method.client_streaming + _short(method.input_type)
                given = "stream " * method.server_streaming + _short(method.output_type)
                lines += [f"- **`{method.name}({sent}) → {given}`** "]
                lines += [_flat(comments.get((_SERVICES, number, _METHODS, at), ""))]
            lines.append("")
        for number, message in enumerate(schema.message_type):
            lines += _message(message, (_MESSAGES, number), comments, message.name)
        for number, kind in enumerate(schema.enum_type):
            lines += [f"### {kind.name}", "", _flat(comments.get((_ENUMS, number), "")), ""]
            for at, value in enumerate(kind.value):
                note = _flat(comments.get((_ENUMS, number, _VALUES, at), ""))
                lines.append(f"- `{value.name}` = {value.number} {note}")
            lines.append("")
    return "\n".join(lines)


def _message(message: Any, path: tuple[int, ...], comments: Any, name: str) -> Iterator[str]:
    yield from (f"### {name}", "", _flat(comments.get(path, "")), "")
    if message.field:
        yield from ("| field | type | |", "|---|---|---|")
    for at, field in enumerate(message.field):
        note = _flat(comments.get((*path, _FIELDS, at), "")).replace("|", "\\|")
        yield f"| `{field.name}` = {field.number} | {_type(field)} | {note} |"
    yield ""
    for at, nested in enumerate(message.nested_type):
        if not nested.options.map_entry:
            yield from _message(nested, (*path, _NESTED, at), comments, f"{name}.{nested.name}")


def _type(field: FieldDescriptorProto) -> str:
    label = "repeated " if field.label == FieldDescriptorProto.LABEL_REPEATED else ""
    if field.type_name:
        return label + _short(field.type_name)
    return label + FieldDescriptorProto.Type.Name(field.type).removeprefix("TYPE_").lower()


def _schemas() -> list[FileDescriptorProto]:
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "schemas"
        names = [f"assay/v1/{name}.proto" for name in SHOWN_SCHEMAS]
        arguments = ["protoc", f"-I{SCHEMAS}", "--include_source_info"]
        if protoc.main([*arguments, f"--descriptor_set_out={output}", *names]) != 0:
            raise SystemExit("the schemas do not compile")
        return list(FileDescriptorSet.FromString(output.read_bytes()).file)


def _short(name: str) -> str:
    return name.rpartition(".")[2]


def _flat(text: str) -> str:
    return " ".join(text.split())


def python_page() -> str:
    """What `import assay` offers, by docstring."""
    package = importlib.import_module("assay")
    lines = ["# Python", "", "Made from the docstrings of `assay`.", ""]
    for name in package.__all__:
        value = getattr(package, name)
        lines += [f"## {name}", ""]
        if inspect.isfunction(value):
            lines += [f"`{name}{_signature(value)}`", ""]
        lines += [_text(value), ""]
        if inspect.isclass(value):
            for at, member in vars(value).items():
                function = inspect.unwrap(getattr(member, "__func__", member))
                if at.startswith("_") or not inspect.isfunction(function):
                    continue
                lines += [f"### {name}.{at}", "", f"`{at}{_signature(function)}`", ""]
                lines += [_text(function), ""]
    return "\n".join(lines)


def _signature(value: Any) -> str:
    return str(inspect.signature(value)).replace("self, ", "").replace("(self)", "()")


def _text(value: Any) -> str:
    return inspect.getdoc(value) or ""


def cli_page() -> str:
    """Every verb of `assay` with its options, as `--help` tells them."""
    from chain.cli.main import build_app

    group = typer.main.get_command(build_app())
    lines = [
        "# Commands",
        "",
        "Made from `assay --help`. Every verb takes `--json` where it prints.",
        "",
    ]
    return "\n".join([*lines, *_command(group, "assay")])


def _command(command: Any, name: str) -> Iterator[str]:
    children = getattr(command, "commands", None)
    if children:
        if name != "assay":
            yield from (f"## {name}", "", _flat(command.help or ""), "")
        for child, value in sorted(children.items()):
            yield from _command(value, f"{name} {child}")
        return
    yield from (f"### {name}", "", (command.help or "").strip(), "")
    for parameter in command.params:
        if parameter.name == "help":
            continue
        names = ", ".join(f"`{option}`" for option in (*parameter.opts, *parameter.secondary_opts))
        text = _flat(getattr(parameter, "help", None) or "")
        yield f"- {names}{': ' * bool(text)}{text}"
    yield ""


def config_page() -> str:
    """Every setting of node.toml: type, default, meaning."""
    from chain.node import config

    tree = ast.parse(Path(config.__file__).read_text())
    notes = {node.name: dict(_notes(node)) for node in tree.body if isinstance(node, ast.ClassDef)}
    lines = [
        "# node.toml",
        "",
        "Made from `chain/node/config.py`. Unknown keys are refused by name.",
        "",
    ]
    lines += _settings(config.NodeConfig, notes, "")
    return "\n".join(lines)


def _settings(model: Any, notes: Any, section: str) -> Iterator[str]:
    yield from (f"## [{section}]" if section else "## Top level", "")
    yield from (notes[model.__name__].get("", ""), "", "| key | default | |", "|---|---|---|")
    sections = []
    for name, field in model.model_fields.items():
        if hasattr(field.annotation, "model_fields"):
            sections.append((name, field.annotation))
            continue
        default = "required" if field.is_required() else f"`{_plain(field.default)}`"
        yield f"| `{name}` | {default} | {notes[model.__name__].get(name, '')} |"
    yield ""
    for name, inner in sections:
        yield from _settings(inner, notes, name)


def _plain(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return repr(str(value)) if isinstance(value, Path | str) else str(value)


def _notes(node: ast.ClassDef) -> Iterator[tuple[str, str]]:
    """The docstring of a class, and those under its fields."""
    yield "", _flat(ast.get_docstring(node) or "")
    for field, after in zip(node.body, node.body[1:], strict=False):
        if (
            isinstance(field, ast.AnnAssign)
            and isinstance(field.target, ast.Name)
            and isinstance(after, ast.Expr)
            and isinstance(after.value, ast.Constant)
        ):
            yield field.target.id, _flat(str(after.value.value))
