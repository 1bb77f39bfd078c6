from classification.runs import Classifiers
from eakd_det.sweep.formats import as_latex, as_markdown, dataset_tables, notes

KIND = Classifiers()
MEAN = {"dataset": "cifar100", "runs": 5, "teacher_top1": 79.42, "interval": 0.1}
SUMMARY = [
    {**MEAN, "models": "wrn_40_2_wrn_40_1", "method": "KD", "mean": 73.456, "std": 0.123},
    {
        **{**MEAN, "models": "wrn_40_2_wrn_40_1", "method": "EA-KD", "mean": 74.3, "std": 0.1},
        **{"published_mean": 74.38, "published_std": 0.1, "difference": -0.08, "source": "S, 1"},
    },
    {
        **{**MEAN, "models": "a", "method": "Student", "mean": 70.0, "std": None, "runs": 1},
        **{"teacher_top1": None, "published_mean": 69.5, "published_std": None},
        **{"difference": 0.5, "source": "S, 2"},
    },
    {**MEAN, "dataset": "digits", "models": "a_b", "method": "KD", "mean": 1.0, "std": 0.0},
]
PAIRED = {"dataset": "cifar100", "models": "wrn_40_2_wrn_40_1", "method": "EA-KD", "minus": "KD"}
DIFFERENCES = [
    {
        **{**PAIRED, "runs": 3, "mean": 0.5, "interval": 0.7452},
        **{"p": 0.0002, "p_holm": 0.0004, "effect": 1.667},
    },
    {
        **{**PAIRED, "runs": 1, "mean": -0.25, "interval": None},
        **{"p": None, "p_holm": None, "effect": None},
    },
]


def cells(line):
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_markdown():
    text = as_markdown(KIND, SUMMARY, DIFFERENCES, {"KD/a_b": [], "EA-KD/a_b": ["A.B", "1"]})
    lines = text.splitlines()
    rows = [cells(line) for line in lines if line.startswith("| ")]
    assert rows == [
        ["Models", "Method", "Top-1", "Runs", "Teacher", "Published", "Difference"],
        ["wrn_40_2_wrn_40_1", "KD", "73.46 ± 0.12", "5", "79.42", "—", "—"],
        ["wrn_40_2_wrn_40_1", "EA-KD", "74.30 ± 0.10", "5", "79.42", "74.38 ± 0.10", "-0.08"],
        ["a", "Student", "70.00 ± —", "1", "—", "69.50", "+0.50"],
        ["Models", "Methods", "Difference", "p (Holm)", "Effect", "Runs"],
        ["wrn_40_2_wrn_40_1", "EA-KD minus KD", "+0.50 ± 0.75", "<0.001", "+1.67", "3"],
        ["wrn_40_2_wrn_40_1", "EA-KD minus KD", "-0.25 ± —", "—", "—", "1"],
        ["Models", "Method", "Top-1", "Runs", "Teacher", "Published", "Difference"],
        ["a_b", "KD", "1.00 ± 0.00", "5", "79.42", "—", "—"],
    ]
    assert [line for line in lines if line.startswith("#")] == ["## cifar100", "## digits"]
    assert "Published: S, 1; S, 2." in lines
    assert "Options of EA-KD/a_b: `A.B 1`." in lines
    assert sum("corrected for 1 comparison (Holm" in line for line in lines) == 1


def test_differences_of_single_seeds_have_no_tests():
    header, (row,) = dataset_tables(KIND, "cifar100", [], DIFFERENCES[1:])[1]
    assert header == ["Models", "Methods", "Difference", "Runs"] and row[-1] == "1"
    assert not any("Holm" in line for line in notes(KIND, [], DIFFERENCES[1:]))


def test_caveats_are_notes():
    differences = [{**DIFFERENCES[0], "caveats": ["EA-KD minus KD: other options."]}]
    assert "EA-KD minus KD: other options." in notes(KIND, SUMMARY, differences)


def test_markdown_is_aligned():
    blocks = as_markdown(KIND, SUMMARY, DIFFERENCES, {}).split("\n\n")
    tables = [block.splitlines() for block in blocks if block.startswith("|")]
    assert len(tables) == 3
    for lines in tables:
        columns = [[i for i, char in enumerate(line) if char == "|"] for line in lines]
        assert all(bars == columns[0] for bars in columns)


def test_options_of_all_runs_are_told_once():
    text = as_markdown(KIND, SUMMARY, [], {"KD/a": ["A.B", "1"], "EA-KD/a": ["A.B", "1"]})
    assert text.count("Options of") == 1 and "Options of all runs: `A.B 1`." in text
    more = {"KD/a": ["A.B", "1"], "KD C=2/a": ["A.B", "1", "C", "2"]}
    lines = as_markdown(KIND, SUMMARY, [], more).splitlines()
    assert lines[-2:] == ["Options of all runs: `A.B 1`.", "Options of KD C=2/a: `C 2`."]


def test_latex():
    lines = as_latex(KIND, SUMMARY, DIFFERENCES).splitlines()
    assert lines.count(r"\begin{tabular}{llrrrrr}") == 2
    assert lines.count(r"\begin{tabular}{llrrrr}") == 1
    for row in (
        r"wrn\_40\_2\_wrn\_40\_1 & KD & 73.46 $\pm$ 0.12 & 5 & 79.42 & --- & --- \\",
        r"wrn\_40\_2\_wrn\_40\_1 & EA-KD minus KD & +0.50 $\pm$ 0.75 & $<$0.001 & +1.67 & 3 \\",
        r"wrn\_40\_2\_wrn\_40\_1 & EA-KD minus KD & $-$0.25 $\pm$ --- & --- & --- & 1 \\",
    ):
        assert row in lines
    text = "\n".join(lines)
    assert text.count(r"\begin{") == text.count(r"\end{") == text.count(r"\toprule") == 3
    assert all(line.count("&") in (0, 5, 6) for line in lines)


def test_latex_escapes():
    entry = {**SUMMARY[3], "models": r"a&b%c$d#e_f{g}h~i^j\k", "method": "KD+LS"}
    row = as_latex(KIND, [entry], []).splitlines()[6]
    escaped = r"a\&b\%c\$d\#e\_f\{g\}h\textasciitilde{}i\textasciicircum{}j\textbackslash{}k"
    assert row.startswith(f"{escaped} & KD+LS & ")
