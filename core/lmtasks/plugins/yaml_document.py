"""A YAML file as data, with the lines of its keys for messages."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml

from lmtasks.errors import PluginError

MAX_VALUES = 10_000
"""Limit of values in a file; only aliases of aliases exceed it."""


class YamlDocument:
    """A mapping read from a YAML file."""

    def __init__(self, path: Path, content: bytes) -> None:
        """Parse the content of a file.

        Raises:
            PluginError: it is not UTF-8, not YAML, no mapping, or has a key twice; names file and line.
        """
        self.path = path
        try:
            loader = yaml.SafeLoader(self._decode(content))
            node = loader.get_single_node()
            if not isinstance(node, yaml.MappingNode):
                raise PluginError(f'{path}: expected a task, lines such as "name: titles"')
            self._check_node(node, {})
            self._root: yaml.Node = node
            self.values: dict[str, Any] = loader.construct_document(node)
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            line = f", line {mark.line + 1}" if mark else ""
            raise PluginError(f"{path}{line}: not YAML: {error.problem or error.context}") from error
        except yaml.YAMLError as error:
            raise PluginError(f"{path}: not YAML: {' '.join(str(error).split())}") from error
        except RecursionError as error:
            raise PluginError(f"{path}: nested too deeply for a task") from error
        except ValueError as error:  # an invalid number or date
            raise PluginError(f"{path}: not YAML: {error}; put text in quotes") from error

    def line(self, keys: Iterable[str | int]) -> int:
        """Return the line of the value that keys and indexes lead to, or of the nearest one above it that exists."""
        node, line = self._root, self._root.start_mark.line
        for key in keys:
            pair = None
            if isinstance(node, yaml.MappingNode):
                pair = next((pair for pair in node.value if pair[0].value == str(key)), None)
            elif isinstance(node, yaml.SequenceNode) and isinstance(key, int) and key < len(node.value):
                pair = (node.value[key], node.value[key])
            if pair is None:
                break
            line, node = pair[0].start_mark.line, pair[1]
        return int(line) + 1

    def error(self, keys: Iterable[str | int], problem: str) -> PluginError:
        """Return an error that names the file and the line of a value."""
        return PluginError(f"{self.path}, line {self.line(keys)}: {problem}")

    def _decode(self, content: bytes) -> str:
        try:
            return content.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            line = content[: error.start].count(b"\n") + 1
            raise PluginError(f"{self.path}, line {line}: not UTF-8; save the file as UTF-8") from error

    def _check_node(self, node: yaml.Node, sizes: dict[int, int]) -> int:
        """Refuse duplicate keys, of which YAML would use the last, and aliases that grow without bound.

        Args:
            node: is checked with all below it.
            sizes: values of each node that was checked, by its `id`.

        Returns:
            The number of values that the node stands for.
        """
        if id(node) in sizes:  # an alias of a node that was checked, or of one that contains it
            return sizes[id(node)]
        sizes[id(node)] = MAX_VALUES + 1
        size, seen = 1, set()
        if isinstance(node, yaml.SequenceNode):
            size += sum(self._check_node(item, sizes) for item in node.value)
        if isinstance(node, yaml.MappingNode):
            for key, value in node.value:
                line = key.start_mark.line + 1
                if not isinstance(key, yaml.ScalarNode):
                    raise PluginError(f"{self.path}, line {line}: a key must be plain text")
                if key.value in seen:
                    raise PluginError(f'{self.path}, line {line}: "{key.value}" stands here twice')
                seen.add(key.value)
                size += self._check_node(value, sizes)
        if size > MAX_VALUES:
            line = node.start_mark.line + 1
            raise PluginError(f"{self.path}, line {line}: stands for more than {MAX_VALUES:,} values, by its aliases")
        sizes[id(node)] = size
        return size
