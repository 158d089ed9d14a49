"""The pytest plugin: users' tests of their ports, run by pytest's own pytester."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from _pytest.pytester import SysModulesSnapshot

import refnet
from refnet import ops
from refnet.arithmetic.golden import Golden
from refnet.cli import main
from refnet.core.errors import InputError
from refnet.core.graph import Graph, Node, TensorType
from refnet.core.op import Interval
from refnet.formats.golden_file import canonical, digest, dumps, read
from refnet.formats.manifest import file_name
from refnet.loops.jit import cache_folder
from refnet.models.export import export
from refnet.models.inputs import prepare
from refnet.models.weights import shipped_folder
from refnet.verification.difference import differs, shares, ulps
from refnet.verification.golden_check import Checker, GoldenSource, accept
from tests.helpers.bits import floats
from tests.helpers.engines import EXACT, FAST

pytest_plugins = ["pytester"]

GOLDEN = shipped_folder() / "golden" / "resnest-digits.json"
KERNELS = cache_folder().parent
"""Of this process: pytester gives its tests a home folder of their own, where nothing is compiled yet."""
CONV, RELU = "layer1.0.conv1", "layer1.0.relu"


@pytest.fixture(scope="module")
def values() -> dict[str, np.ndarray]:
    """All golden values of the golden file, and its input."""
    graph, inputs = prepare(read(GOLDEN).sources)
    return {node.name: value.copy() for node, value in refnet.steps(graph, inputs, Golden(1))} | inputs


@pytest.fixture(scope="module")
def graph() -> refnet.Graph:
    return refnet.load("resnest-digits")


class Kept(SysModulesSnapshot):
    """pytester forgets every module that an inner run imported, Numba's compiler among them, which cannot
    be imported twice ("duplicate registration"). So only the inner tests' own modules are forgotten.
    """

    def __init__(self) -> None:
        super().__init__(preserve=lambda name: not name.startswith(("test_", "conftest")))


@pytest.fixture(autouse=True)
def _quick(monkeypatch, request):
    """The tests inside of these tests load the kernels of this process, and no other heavy plugin."""
    if "pytester" in request.fixturenames:
        monkeypatch.setattr(pytest.Pytester, "_Pytester__take_sys_modules_snapshot", lambda _: Kept())
        request.getfixturevalue("pytester")
        monkeypatch.setenv("REFNET_CACHE", str(KERNELS))
        monkeypatch.setenv("PYTEST_ADDOPTS", "-p no:hypothesispytest -p no:cacheprovider")


@pytest.fixture
def users(pytester: pytest.Pytester, values) -> pytest.Pytester:
    """A user's folder: a golden file, the arrays of a port, an ini file."""
    np.savez("port.npz", **{name.replace(".", "__"): value for name, value in values.items()})
    Path("net.json").write_bytes(GOLDEN.read_bytes())
    pytester.makeini("[pytest]\ngolden = net.json\n")
    pytester.makeconftest(
        """
        import numpy as np
        import pytest

        @pytest.fixture(scope="session")
        def port(pytestconfig):
            with np.load(pytestconfig.rootpath / "port.npz") as file:
                return {name.replace("__", "."): file[name] for name in file}
        """
    )
    return pytester


def one_off(values: dict[str, np.ndarray], name: str, flat: int, bits: int) -> np.ndarray:
    """A copy with one element's bits changed."""
    array = values[name].copy()
    array.view(np.uint32).flat[flat] ^= bits
    return array


# Nothing happens to those who do not use it.


def test_it_costs_nothing_at_start_and_bothers_nobody(pytester):
    pytester.makepyfile(
        """
        import sys

        HEAVY = ("numpy", "numba", "llvmlite", "PIL", "rich")
        HEAVY += ("refnet.verification.golden_check", "refnet.verification.golden")

        def test_nothing_heavy_is_imported():
            assert "refnet.pytest_plugin" in sys.modules
            assert [name for name in HEAVY if name in sys.modules] == []
        """
    )
    result = pytester.runpytest_subprocess("-W", "error", "--strict-markers")
    result.assert_outcomes(passed=1)


def test_equal_bits_need_no_compiler(users):
    users.makepyfile(
        """
        import sys

        def test_all(golden, port):
            for name, array in port.items():
                golden.check(name, array)
            assert [name for name in ("numba", "llvmlite", "PIL", "rich") if name in sys.modules] == []
        """
    )
    users.runpytest_subprocess("-W", "error").assert_outcomes(passed=1)


def test_without_a_golden_file_only_the_fixture_fails(pytester):
    pytester.makepyfile("def test_a(): pass\ndef test_b(golden): pass\n")
    result = pytester.runpytest(*STRICT)
    result.assert_outcomes(passed=1, errors=1)
    result.stdout.fnmatch_lines(["*choose one with pytest --golden PATH, golden = PATH in pytest's ini*"])


@pytest.mark.parametrize(
    ("name", "why"),
    [("none.json", "cannot be read"), ("test_a.py", "no JSON"), ("empty", "without any .npy file")],
)
def test_a_golden_file_that_is_none(pytester, name, why):
    pytester.mkdir("empty")
    pytester.makepyfile(test_a="def test_a(golden): pass\n")
    result = pytester.runpytest("--golden", name)
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines([f"*{name}*{why}*"])


@pytest.mark.parametrize("marked", ["5", "None", "'a\\0b'", "['a']"])
def test_a_marker_that_names_no_path(pytester, marked):
    pytester.makepyfile(f"import pytest\n@pytest.mark.golden({marked})\ndef test_a(golden): pass\n")
    result = pytester.runpytest()
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["*takes a path, got*"])
    result.stdout.no_fnmatch_line("*During handling*")


def test_marker_then_command_line_then_ini_file(users):
    changed = read(GOLDEN)
    fc = digest(np.zeros((1, 10), np.float32))
    Path("zero.json").write_text(dumps(type(changed)({"fc": fc})))
    users.mkdir("sub")
    source = "import numpy as np\ndef test_fc(golden): golden.check('fc', np.zeros((1, 10), np.float32))\n"
    Path("sub/test_ini.py").write_text(source)
    Path("sub/test_mark.py").write_text(
        "import pytest\npytestmark = pytest.mark.golden('../zero.json')\n" + source
    )
    users.runpytest("--strict-markers").assert_outcomes(passed=1, failed=1)
    users.runpytest("--golden", "zero.json").assert_outcomes(passed=2)
    users.runpytest("--golden", "net.json").assert_outcomes(passed=1, failed=1)
    Path("sub/test_bad.py").write_text(source.replace("def", "import pytest\n@pytest.mark.golden()\ndef"))
    users.runpytest("sub/test_bad.py").stdout.fnmatch_lines(["*@pytest.mark.golden takes one path*"])


# What a failure shows.


def test_a_failure_shows_the_first_element_and_its_share_of_the_bound(users, values, graph):
    users.makepyfile(
        f"""
        import numpy as np

        def test_conv(golden, port):
            array = port["{CONV}"].copy()
            array.view(np.uint32)[0, 3, 2, 1] ^= 1
            array[0, 5, 0, 0] += 1
            golden.check("{CONV}", array)
        """
    )
    result = users.runpytest()
    result.assert_outcomes(failed=1)
    text = result.stdout.str()
    true = values[CONV][0, 3, 2, 1]
    bits = int(true.view(np.uint32))
    near = np.uint32(bits ^ 1).view(np.float32)
    node = graph.by_name[CONV]
    arguments = [values[node.data[0]], *(graph.weights[name] for name in node.weights)]
    bound = node.op.bound(*map(Interval.exactly, arguments), engine=FAST)
    radius, center = bound.radius[0, 3, 2, 1], bound.center[0, 3, 2, 1]
    for line in (
        f"{CONV} is not what {Path('net.json').resolve()} has",
        f"2 of {values[CONV].size} elements differ, first at [0, 3, 2, 1]:",
        f"  found   0x{bits ^ 1:08x}  {near!s}",
        f"  golden  0x{bits:08x}  {true!s}",
        f"  1 ulp, {abs(float(near) - center) / radius:.3g} of the bound, {radius:.3g}",
    ):
        assert line in text, line
    assert "reference.py" not in text  # the traceback ends in the user's line
    assert ">           golden.check(" in text or ">   golden.check(" in text or "golden.check(" in text


def test_the_difference_is_a_plain_assertion_error(values):
    checker = Checker(GoldenSource(GOLDEN))
    with pytest.raises(AssertionError, match="1 of 10 elements differ, first at"):
        checker.check("fc", one_off(values, "fc", 4, 0x80000000))


def test_wrong_dtype_shape_and_name(values):
    checker = Checker(GoldenSource(GOLDEN))
    checker.check("fc", values["fc"])
    checker.check("fc", values["fc"].astype(">f4"))
    checker.check("fc", np.asfortranarray(values["fc"]))
    checker.check("fc", values["fc"].tolist() and memoryview(values["fc"]))
    with pytest.raises(AssertionError, match="the dtype is float64"):
        checker.check("fc", values["fc"].astype(np.float64))
    with pytest.raises(AssertionError, match="the dtype is float64"):
        checker.check("fc", values["fc"].tolist())
    with pytest.raises(AssertionError, match=re.escape("the shape is [10], must be [1, 10]")):
        checker.check("fc", values["fc"][0])
    with pytest.raises(InputError, match=r"did you mean layer1\.0\.conv[13] or"):
        checker.check("layer1.0.conv", values["fc"])
    with pytest.raises(InputError, match="no array for NumPy"):
        checker.check("fc", Refusing())
    masked = np.ma.masked_array(values["fc"], values["fc"] == values["fc"])
    with pytest.raises(AssertionError, match="masked"):
        checker.check("fc", masked)
    for name in (5, ["fc"], None):
        with pytest.raises(InputError, match="must be a value's name"):
            checker.check(name, values["fc"])
    for arguments in ({"within": "rtol"}, {"inputs": "mine", "within": "bound"}, {"inputs": "checked"}):
        with pytest.raises(InputError, match="within"):
            checker.check("fc", values["fc"], **arguments)


class Refusing:
    def __array__(self, *_: object, **__: object) -> np.ndarray:
        raise RuntimeError("detach first")


def test_input_and_nan(values, tmp_path):
    checker = Checker(GoldenSource(GOLDEN))
    checker.check("data", values["data"])
    with pytest.raises(AssertionError, match="first at"):
        checker.check("data", one_off(values, "data", 0, 1))
    nan = np.array([0x7F800001, 0x3F800000], np.uint32).view(np.float32)
    np.save(tmp_path / "v.npy", nan)
    own = Checker(GoldenSource(tmp_path))
    own.check("v", np.float32([-np.nan, 1]))
    with pytest.raises(AssertionError, match="one of the two is NaN"):
        own.check("v", np.float32([0, 1]))
    with pytest.raises(AssertionError, match=r"first at \[1\]"):
        own.check("v", np.float32([np.nan, -1]))


def test_where_no_element_can_be_shown_the_hashes_are(values, tmp_path):
    file = read(GOLDEN)
    bare = tmp_path / "bare.json"
    bare.write_text(dumps(type(file)({"fc": file.values["fc"]})))
    with pytest.raises(AssertionError, match="the element cannot be shown: the golden file does not say its"):
        Checker(GoldenSource(bare)).check("fc", one_off(values, "fc", 0, 1))
    stale = tmp_path / "stale.json"
    stale.write_text(dumps(type(file)(**{**vars(file), "weights": "0" * 64})))
    with pytest.raises(AssertionError, match="made of other sources than refnet finds here: weights"):
        Checker(GoldenSource(stale)).check("fc", one_off(values, "fc", 0, 1))
    wrong = tmp_path / "wrong.json"
    wrong.write_text(dumps(type(file)(**{**vars(file), "values": {"fc": digest(np.zeros((1, 10), "f4"))}})))
    with pytest.raises(AssertionError, match="has another hash than the file too") as error:
        Checker(GoldenSource(wrong)).check("fc", values["fc"])
    assert "found has exactly the bits of refnet's own golden value" in str(error.value)


# Bounds.


def test_within_bound_takes_roundings_and_refuses_the_rest(values, graph):
    checker = Checker(GoldenSource(GOLDEN))
    node = graph.by_name[CONV]
    arguments = [values[node.data[0]], *(graph.weights[name] for name in node.weights)]
    plain = node.op.run(*arguments, engine=FAST)
    assert differs(plain, values[CONV]).any()
    checker.check(CONV, plain, within="bound")
    with pytest.raises(AssertionError, match="elements differ"):
        checker.check(CONV, plain)
    bound = node.op.bound(*map(Interval.exactly, arguments), engine=FAST)
    at = (0, 1, 2, 3)
    for share, inside in ((0.9, True), (1.1, False)):
        array = values[CONV].copy()
        array[at] = np.float32(bound.center[at] + share * bound.radius[at])
        if inside:
            checker.check(CONV, array, within="bound")
        else:
            with pytest.raises(
                AssertionError, match=r"1 of \d+ elements lie outside the bound, first at \[0, 1"
            ):
                checker.check(CONV, array, within="bound")
    with pytest.raises(AssertionError, match="the shape is"):
        checker.check(CONV, plain[:, :2], within="bound")
    with pytest.raises(InputError, match="is an input, without bound"):
        checker.check("data", values["data"], within="bound")


def test_an_array_with_channels_last(values):
    """Within the bound it is read as verify reads it, with a warning; its bits are compared in one shape."""
    checker, name = Checker(GoldenSource(GOLDEN)), "conv1.0"
    last = values[name].transpose(0, 2, 3, 1)
    with pytest.warns(UserWarning, match=r"read transposed by \(0, 3, 1, 2\), the only order"):
        checker.check(name, last, within="bound")
    with pytest.raises(AssertionError, match="no order of its axes is clean"):
        checker.check(name, last + np.float32(1), within="bound")
    with pytest.raises(AssertionError, match=r"must be .*; read transposed by \(0, 3, 1, 2\), it has"):
        checker.check(name, last)


def test_within_bound_an_op_with_one_result_must_have_its_bits(values):
    checker = Checker(GoldenSource(GOLDEN))
    checker.check(RELU, values[RELU], within="bound")
    flat = int(np.argmax(values[RELU]))
    with pytest.raises(AssertionError, match="Relu has only one right result"):
        checker.check(RELU, one_off(values, RELU, flat, 1), within="bound")
    flat = int(np.argmin(np.abs(values[RELU])))
    assert values[RELU].flat[flat] == 0
    other_zero = one_off(values, RELU, flat, 0x80000000)
    with pytest.raises(AssertionError, match="zeros of different sign"):
        checker.check(RELU, other_zero)
    checker.check(RELU, other_zero, within="bound")  # frameworks vary in the sign of a relu's zero


def test_the_bound_on_the_inputs_checked_before_judges_the_node_alone(values, graph):
    """A port that is off by a rounding upstream: its next node is judged on what it was fed."""
    fed = {name: values[name].copy() for name in values}
    chain = [node for node in graph.nodes if node.name in ("conv1.0", "conv1.1", "conv1.2")]
    assert len(chain) == 3
    off = values["conv1.0"] * np.float32(1.5)  # far outside of any bound for the next node
    fed["conv1.0"] = off
    for node in chain[1:]:
        arguments = [fed[name] for name in node.data] + [graph.weights[name] for name in node.weights]
        fed[node.name] = node.op.run(*arguments, engine=FAST)
    checker = Checker(GoldenSource(GOLDEN))
    with pytest.raises(InputError, match=r"'conv1\.0', which was not checked before"):
        checker.check("conv1.1", fed["conv1.1"], within="bound", inputs="checked")
    with pytest.raises(AssertionError, match="lie outside the bound"):
        checker.check("conv1.1", fed["conv1.1"], within="bound")
    checker._checked["conv1.0"] = off
    checker.check("conv1.1", fed["conv1.1"], within="bound", inputs="checked")
    checker.check("conv1.2", fed["conv1.2"], within="bound", inputs="checked")
    with pytest.raises(AssertionError, match="on the inputs checked before"):
        checker.check(
            "conv1.2",
            one_off(fed, "conv1.2", int(np.argmax(fed["conv1.2"])), 1),
            within="bound",
            inputs="checked",
        )
    first = Checker(GoldenSource(GOLDEN))
    first.check("conv1.0", values["conv1.0"], within="bound", inputs="checked")  # the file's own input


def test_what_was_checked_is_kept_as_it_was(values):
    checker = Checker(GoldenSource(GOLDEN))
    buffer = values["conv1.0"].copy()
    checker.check("conv1.0", buffer)
    buffer[:] = 0
    checker.check("conv1.1", values["conv1.1"], within="bound", inputs="checked")


def test_an_infinite_bound_promises_nothing():
    bound = Interval(np.zeros(3), np.array([np.inf, 1.0, np.inf]))
    found = np.float32([1, 1, 2])
    assert np.isnan(shares(found, bound)).tolist() == [True, False, True]
    assert shares(found, bound)[1] == 1


def test_ulps_across_zero_and_to_infinity():
    big = np.finfo(np.float32).max
    found = np.float32([0.0, -0.0, 1e-45, big, 1, np.nan])
    golden = np.float32([-0.0, 1e-45, -1e-45, np.inf, 2, 1])
    assert ulps(found, golden).tolist() == [0, 1, -2, 1, 1 << 23, -1]  # nobody counts across zero
    assert differs(found, golden).all()


# Folders.


def test_a_folder_of_arrays(users, values):
    folder = Path("values")
    folder.mkdir()
    for name in (CONV, RELU):
        np.save(folder / file_name(name), values[name])
    np.save(folder / file_name("a/b %"), values["fc"])
    assert (folder / "a%2Fb%20%25.npy").exists()
    users.makepyfile(
        f"""
        def test_equal(golden, port):
            golden.check("{CONV}", port["{CONV}"])
            golden.check("a/b %", port["fc"])

        def test_off(golden, port):
            golden.check("{CONV}", -port["{CONV}"])

        def test_bound(golden, port):
            golden.check("{CONV}", port["{CONV}"], within="bound")
        """
    )
    result = users.runpytest("--golden", "values")
    result.assert_outcomes(passed=1, failed=2)
    result.stdout.fnmatch_lines(
        ["*no bound is known: *values has no golden.json*", "*elements differ, first at*"]
    )
    (folder / "golden.json").write_bytes(GOLDEN.read_bytes())
    result = users.runpytest("--golden", "values")
    result.assert_outcomes(passed=2, failed=1)
    result.stdout.fnmatch_lines(["*of the bound, *"])
    np.save(folder / file_name(CONV), values[CONV] + 1)
    users.runpytest("--golden", "values").stdout.fnmatch_lines(["*(golden.json beside it)*"])


# Updates.

STRICT = ("-W", "error", "-W", "ignore:Module already imported:pytest.PytestAssertRewriteWarning")
"""Warnings are errors, but for the one that says that these tests, too, run in a process that has refnet."""
UPDATE = ("--golden-update", "--golden-reason", "the new pooling")


@pytest.mark.parametrize("reason", [[], ["--golden-reason", ""], ["--golden-reason", "  "]])
def test_an_update_wants_a_reason(users, reason):
    users.makepyfile("def test_a(golden): golden.check('fc', 0)")
    result = users.runpytest_subprocess("--golden-update", *reason)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*--golden-update wants a reason*"])
    assert Path("net.json").read_bytes() == GOLDEN.read_bytes()
    only = users.runpytest_subprocess("--golden-reason", "x")
    assert only.ret == pytest.ExitCode.USAGE_ERROR


def test_an_update_shows_the_difference_writes_it_and_records_the_reason(users, values):
    users.makepyfile("def test_fc(golden, port): golden.check('fc', -port['fc'])")
    users.runpytest().assert_outcomes(failed=1)
    assert Path("net.json").read_bytes() == GOLDEN.read_bytes()
    result = users.runpytest(*UPDATE, *STRICT)
    result.assert_outcomes(passed=1)
    shown = result.stdout.str()
    before = shown.index("10 of 10 elements differ, first at [0, 0]:")
    assert before < shown.index("net.json: values written: 1")
    old, new = read(GOLDEN), read("net.json")
    assert new.values == {**old.values, "fc": digest(-values["fc"])}
    assert (new.inputs, new.graph, new.weights, new.sources) == (
        old.inputs,
        old.graph,
        old.weights,
        old.sources,
    )
    (change,) = new.history
    assert change.reason == "the new pooling"
    assert re.fullmatch(r"20\d\d-\d\d-\d\d", change.date)
    assert change.changed == {"fc": (old.values["fc"].sha256, new.values["fc"].sha256)}
    users.runpytest().assert_outcomes(passed=1)
    written = Path("net.json").read_bytes()
    again = users.runpytest(*UPDATE)
    again.assert_outcomes(passed=1)
    again.stdout.fnmatch_lines(["golden update: nothing differs"])
    assert Path("net.json").read_bytes() == written
    assert not list(Path().glob(".refnet*"))


def test_an_update_is_not_written_unless_the_run_passes(users):
    users.makepyfile(
        """
        def test_fc(golden, port): golden.check("fc", -port["fc"])
        def test_other(): assert False
        """
    )
    result = users.runpytest(*UPDATE)
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(["*10 of 10 elements differ*", "*not written, because the run did not pass*"])
    assert Path("net.json").read_bytes() == GOLDEN.read_bytes()


def test_an_update_takes_one_value_only_once(users):
    users.makepyfile(
        """
        def test_a(golden, port): golden.check("fc", -port["fc"])
        def test_b(golden, port): golden.check("fc", port["fc"])
        """
    )
    result = users.runpytest(*UPDATE)
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(["*this run had other bits for it before*"])
    assert Path("net.json").read_bytes() == GOLDEN.read_bytes()


def test_an_update_cannot_make_a_defect_a_rounding(users):
    users.makepyfile("def test_a(golden, port): golden.check('fc', -port['fc'], within='bound')")
    users.runpytest(*UPDATE).assert_outcomes(failed=1)
    assert Path("net.json").read_bytes() == GOLDEN.read_bytes()


def test_an_update_that_cannot_be_written_fails_the_run(users):
    users.makepyfile(
        """
        import pathlib

        def test_a(golden, port):
            golden.check("fc", -port["fc"])
            pathlib.Path("net.json").unlink()
        """
    )
    result = users.runpytest_subprocess(*UPDATE)
    result.stdout.fnmatch_lines(["*not written: *net.json*"])
    assert result.ret == pytest.ExitCode.TESTS_FAILED


def test_an_update_of_a_folder(users, values):
    folder = Path("values")
    folder.mkdir()
    np.save(folder / "fc.npy", values["fc"])
    users.makepyfile(
        """
        def test_fc(golden, port):
            golden.check("fc", -port["fc"])
            golden.check("a/b", port["fc"])
        """
    )
    users.runpytest("--golden", "values", *UPDATE).assert_outcomes(passed=1)
    assert canonical(np.load(folder / "fc.npy")) == canonical(-values["fc"])
    file = read(folder / "golden.json")
    assert set(file.values) == {"fc", "a/b"}
    assert file.history[0].changed["a/b"] == (None, digest(values["fc"]).sha256)
    users.runpytest("--golden", "values").assert_outcomes(passed=1)


def test_what_lay_on_disk_is_removed(users, monkeypatch, tmp_path):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    source = """
        from pathlib import Path

        def test_a(golden, port):
            golden.check("fc", port["fc"], within="bound")
            assert len(list(Path(FOLDER).glob("refnet-golden-*/*.npy"))) > 50
        """
    users.makepyfile(source.replace("FOLDER", repr(str(tmp_path))))
    users.runpytest(*STRICT).assert_outcomes(passed=1)
    assert list(tmp_path.glob("refnet-golden-*")) == []


def test_the_tests_of_the_page(pytester):
    """The two user tests of docs/golden.md, with a port that is refnet in plain arithmetic."""
    page = (Path(__file__).parents[1] / "docs" / "golden.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```python\n(def test_.*?)^```$", page, re.M | re.S)
    assert len(blocks) == 2
    file = GOLDEN.with_name("octave-se-resnet-digits.json")
    pytester.makeconftest(
        f"""
        import pytest, refnet
        from pathlib import Path
        from refnet.arithmetic.golden import Golden
        from refnet.models.inputs import prepare
        from refnet.formats.golden_file import read

        class Port:
            def __init__(self):
                self.graph, self.inputs = prepare(read({str(file)!r}).sources)

            def conv1(self, image):
                return refnet.run(self.graph, {{"data": image}}, Golden(), ["conv1_conv"])["conv1_conv"]

            def run(self, image):
                for node, value in refnet.steps(self.graph, {{"data": image}}):
                    yield node.name, value

        @pytest.fixture
        def my_port():
            return Port()

        @pytest.fixture
        def image(my_port):
            return my_port.inputs["data"]
        """
    )
    pytester.makepyfile("\n\n".join(blocks))
    pytester.runpytest("--golden", str(file), *STRICT).assert_outcomes(passed=2)


def test_a_capture_is_a_reference_too(tmp_path: Path, capsys, graph: refnet.Graph) -> None:
    """Bits are compared with the capture's own; bounds are computed from the capture's own inputs."""
    command = ["capture", "refnet", "resnest-digits", "--batch", "2", "-o"]
    assert main([*command, str(tmp_path / "data")]) == 0
    assert main([*command, str(tmp_path / "hashes"), "--hash-only"]) == 0
    capsys.readouterr()
    with_data, hashes = GoldenSource(tmp_path / "data"), GoldenSource(tmp_path / "hashes")
    for reference in (with_data, hashes):
        assert reference.names() == ["data", *(node.name for node in graph.nodes)]
        checker = Checker(reference)
        for name in ("data", CONV, RELU, "prob"):
            checker.check(name, with_data.value(name))
        with pytest.raises(AssertionError, match=f"{CONV} is not what"):
            checker.check(CONV, with_data.value(CONV) + np.float32(1))
    checker, value = Checker(with_data), with_data.value(CONV)
    node = graph.by_name[CONV]
    arguments = [with_data.value(name) for name in node.data]
    arguments += [graph.weights[name] for name in node.weights]
    golden = node.op.golden(*arguments, exact=EXACT)
    assert differs(value, golden).any()
    checker.check(CONV, golden, within="bound")
    checker.check(CONV, value, within="bound")
    with pytest.raises(AssertionError, match="on the capture's values"):
        checker.check(CONV, value + np.float32(1), within="bound")
    with pytest.raises(InputError, match="is a capture"):
        accept(tmp_path / "data", {}, "because")
    for reference in (with_data, hashes):
        reference.close()


def test_a_capture_is_read_as_verify_reads_it(tmp_path: Path) -> None:
    """Of a .onnx elsewhere; with channels last; the batch norm's values under the convolution's name."""
    weights = {"w": floats((8, 3, 3, 3), "w"), "w2": floats((8, 8, 3, 3), "w2")}
    weights |= {name: np.abs(floats((8,), name)) + np.float32(0.5) for name in "gbmv"}
    nodes = (
        Node("conv", ops.Conv(8, (3, 3), pad=(1, 1)), ("x", "w")),
        Node("bn", ops.BatchNorm(1e-5), ("conv", "g", "b", "m", "v")),
        Node("relu", ops.Relu(), ("bn",)),
        Node("last", ops.Conv(8, (3, 3), pad=(1, 1)), ("relu", "w2")),
    )
    graph = Graph("net", {"x": TensorType((1, 3, 6, 6))}, nodes, {"out": "last"}, weights)
    (tmp_path / "models").mkdir()
    (model,) = export(graph, tmp_path / "models" / "net", "onnx")
    dump = tmp_path / "dump"
    dump.mkdir()
    values = {"x": floats((1, 3, 6, 6), "x")}
    np.save(dump / "x.npy", values["x"])
    for node, value in refnet.steps(graph, values):
        values[node.name] = value
    for name, held in (("conv", "bn"), ("relu", "relu"), ("last", "last")):
        np.save(dump / f"{name}.npy", values[held].transpose(0, 2, 3, 1))
    refnet.capture("folder", dump, tmp_path / "run", network=str(model))
    checker = Checker(GoldenSource(tmp_path / "run"))
    checker.check("relu", values["relu"], within="bound")
    checker.check("last", values["last"], within="bound")
    with pytest.raises(AssertionError, match="on the capture's values"):
        checker.check("relu", values["relu"] + np.float32(1), within="bound")
    checker.reference.close()
    np.save(dump / "relu.npy", floats((1, 6, 6, 8), "another"))
    refnet.capture("folder", dump, tmp_path / "wrong", network=str(model))
    checker = Checker(GoldenSource(tmp_path / "wrong"))
    with pytest.raises(InputError, match="the capture does not tell what last reads: relu"):
        checker.check("last", values["last"], within="bound")
    checker.reference.close()


def test_an_unfinished_capture_is_no_reference(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.zeros(1, np.float32))
    GoldenSource(tmp_path)
    (tmp_path / "progress.jsonl").write_text("{}")
    with pytest.raises(InputError, match="not finished"):
        GoldenSource(tmp_path)
