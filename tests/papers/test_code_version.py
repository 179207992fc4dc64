"""The version of the code: the files that matter and no others, and only what is executed."""

from __future__ import annotations

import ast

from lit_gen.papers.code_version import PACKAGE, bare_source, code_files, code_version

RBM = {"model": {"class_path": "lit_gen.energy.RBM"}, "data": {"class_path": "lit_gen.data.MNIST"}}

SOURCE = '''\
"""Of the module.

Two lines."""

import os  # why


class A:
    """What it is."""

    x = 1
    """An attribute."""

    def f(self) -> str:
        "Short."
        # a comment
        return "# no comment"   # but this is


def g(): """Alone."""
'''


def names(config: dict) -> set[str]:
    return {file.relative_to(PACKAGE).as_posix() for file in code_files(config)}


def test_what_a_model_is_made_of_and_nothing_else() -> None:
    found = names(RBM)
    assert {"energy/rbm.py", "energy/machine.py", "energy/negative_phase.py", "energy/samplers/annealing.py"} <= found
    assert {"data/sets.py", "data/base.py", "core/random.py", "core/averages.py", "core/module.py"} <= found
    assert not {file for file in found if file.startswith(("vae/", "gan/", "text/", "cli/", "papers/", "sweeps/"))}
    assert "energy/hopfield.py" not in found
    assert "core/stopping.py" not in found
    assert not {file for file in found if file.endswith("__init__.py")}


def test_callbacks_bring_their_metrics() -> None:
    callback = {"class_path": "lit_gen.callbacks.SampleQuality"}
    assert {"callbacks/sample_quality.py", "metrics/frechet.py"} <= names({**RBM, "trainer": {"callbacks": [callback]}})
    assert not {file for file in names(RBM) if file.startswith("metrics/")}


def test_foreign_classes_and_missing_ones_count_for_nothing() -> None:
    optimizer = {"class_path": "torch.optim.Adam"}
    assert names({**RBM, "optimizer": optimizer, "other": "lit_gen.energy.rbm.RBM"}) == names(RBM)


def test_comments_and_docstrings_do_not_count() -> None:
    bare = bare_source(SOURCE)
    assert bare.splitlines() == [
        "import os", "class A:", "    x = 1", "    def f(self) -> str:", '        return "# no comment"', "def g():",
    ]  # fmt: skip
    assert bare_source(SOURCE.replace("why", "why not").replace("Two lines", "Three")) == bare
    assert bare_source(SOURCE.replace("x = 1", "x = 2")) != bare


def test_every_file_keeps_all_that_is_executed() -> None:
    """What is left of a file, with something to do put in for docstrings that stood alone, has the syntax tree of the file."""

    class Strip(ast.NodeTransformer):
        def visit_Expr(self, node: ast.Expr) -> ast.AST | None:
            return None if isinstance(node.value, ast.Constant) and isinstance(node.value.value, str) else node

    for file in sorted(PACKAGE.rglob("*.py")):
        source = file.read_text()
        try:
            kept = ast.parse(bare_source(source))
        except SyntaxError:  # a body that was nothing but its docstring
            kept = None
        if kept is not None:
            trees = [ast.dump(tree).replace("\\n", "") for tree in (kept, Strip().visit(ast.parse(source)))]
            assert trees[0] == trees[1], file  # but for blank lines inside of texts


def test_the_version_follows_the_configuration() -> None:
    versions = {code_version(RBM), code_version({**RBM, "model": {"class_path": "lit_gen.vae.VAE"}})}
    assert len(versions) == 2
    assert all(len(version) == 12 for version in versions)
