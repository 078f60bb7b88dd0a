"""Labels at import: refused with suggestions, and renamed or left out on request."""

import pytest

from leukotree.data.sources import leaves
from tests.helpers.commandline import assert_refused, leukotree

TREE = ("normal", "reactive", "ALL", "AML", "APML", "CLL", "CML")


@pytest.fixture
def root(tmp_path):
    for name in ("APL/p1/1.png", "AML/p2/1.png", "aml/p3/1.png", "mask/1.png", "mask/2.png"):
        (tmp_path / "set" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "set" / name).write_bytes(name.encode())
    return tmp_path / "set"


@pytest.mark.parametrize(
    ("label", "meant"),
    [
        ("APL", ["APML"]),
        ("M3", ["APML"]),
        ("AML-M3", ["APML"]),
        ("AML_M3", ["APML"]),
        ("PML_RARA", ["APML"]),
        ("Acute Promyelocytic Leukaemia", ["APML"]),
        ("apml ", ["APML"]),
        ("aml", ["AML"]),
        ("M5", ["AML"]),
        ("B-ALL", ["ALL"]),
        ("all", ["ALL"]),
        ("SLL", ["CLL"]),
        ("Healthy", ["normal"]),
        ("NORMAL", ["normal"]),
        ("normals", ["normal"]),
        ("benign", ["normal", "reactive"]),
        ("image", []),
        ("mask", []),
        ("train", []),
        ("p1", []),
        ("", []),
        ("...", []),
    ],
)
def test_what_a_label_may_mean(label, meant):
    assert leaves.suggest(label, TREE) == meant


def test_only_leaves_of_the_tree_are_suggested():
    assert leaves.suggest("M3", ("AML", "ALL")) == []


def test_import_folder_refuses_labels_that_are_no_leaves_and_writes_nothing(root):
    done = leukotree("import", "folder", root, "m.csv", cwd=root.parent)
    assert_refused(
        done,
        f"{root}: 'APL' (1 images; APML?), 'aml' (1 images; AML?), 'mask' (2 images): no leaf of the tree, "
        "which has normal, ",
        "; name the leaf with --leaf APL=APML, or leave it out with --skip mask",
    )
    assert not (root.parent / "m.csv").exists()


def test_labels_are_renamed_and_folders_left_out_where_the_user_says_so(root):
    done = leukotree(
        "import",
        "folder",
        root,
        "m.csv",
        "--leaf",
        "APL=APML",
        "--leaf=aml=AML",
        "--skip",
        "mask/",
        cwd=root.parent,
    )
    assert done.returncode == 0, done.stderr
    assert "3 images, 3 patients: AML 2, APML 1" in done.stdout
    assert "skipped 2: left out by --skip mask" in done.stdout


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--leaf", "APL"], ["--leaf 'APL': write OLD=NEW"]),
        (["--leaf", "APL="], ["write OLD=NEW", "--skip"]),
        (["--leaf", "=APML"], ["write OLD=NEW"]),
        (["--leaf", "APL=APL"], ["'APL' is no leaf; the tree has normal"]),
        (["--leaf", "APL=acute"], ["'acute' is no leaf"]),
        (["--leaf", "APK=APML"], ["--leaf APK=...: no such label", "it has AML, APL, aml, mask"]),
        (["--leaf", "APL=APML", "--leaf", "APL=AML"], ["'APL' is already renamed to 'APML'"]),
        (["--skip", "masks"], ["--skip 'masks'", "does not exist"]),
        (["--skip", "."], ["--skip '.'"]),
        (["--skip", "../set/mask"], ["by its path below"]),
        (["--skip", "/"], ["by its path below"]),
        (["--taxonomy", "none.yaml"], ["none.yaml"]),
    ],
)
def test_a_wrong_option_is_refused_before_anything_is_written(root, options, says):
    assert_refused(leukotree("import", "folder", root, "m.csv", *options, cwd=root.parent), *says)
    assert not (root.parent / "m.csv").exists()


def test_labels_can_be_swapped(root):
    options = ["--leaf", "APL=AML", "--leaf", "AML=APML", "--skip", "mask", "--skip", "aml"]
    done = leukotree("import", "folder", root, "m.csv", *options, cwd=root.parent)
    rows = (root.parent / "m.csv").read_text().splitlines()
    assert done.returncode == 0, done.stderr
    assert [row.split(",")[:2] for row in rows[1:]] == [
        ["set/AML/p2/1.png", "APML"],
        ["set/APL/p1/1.png", "AML"],
    ]


def test_another_tree(root):
    (root.parent / "tree.yaml").write_text("cell: {APL: null, AML: null, aml: null}\n")
    done = leukotree(
        "import", "folder", root, "m.csv", "--taxonomy", "tree.yaml", "--skip", "mask", cwd=root.parent
    )
    assert "AML 1, APL 1, aml 1" in done.stdout, done.stderr


def test_a_public_set_of_another_tree_is_refused_or_renamed(tmp_path):
    (tmp_path / "set/Data/All/Patient_01/Signed slides/Promyelocyte").mkdir(parents=True)
    (tmp_path / "set/Data/All/Patient_01/Signed slides/Promyelocyte/1.jpg").write_bytes(b"x")
    (tmp_path / "set/Data/master.csv").write_text("Patient_ID,Diagnosis\nPatient_01,APL\n")
    (tmp_path / "tree.yaml").write_text("cell: [M3, other]\n")
    command = ["import", "deepapl", "set", "m.csv", "--taxonomy", "tree.yaml"]
    assert_refused(
        leukotree(*command, cwd=tmp_path), "'APML' (1 images): no leaf of the tree, which has M3, other"
    )
    assert "M3 1" in leukotree(*command, "--leaf", "APML=M3", cwd=tmp_path).stdout


def test_benign_must_be_a_leaf(tmp_path):
    (tmp_path / "set").mkdir()
    assert_refused(
        leukotree("import", "taleqani", "set", "m.csv", "--benign", "Normal", cwd=tmp_path),
        "--benign 'Normal'",
        "normal",
    )


def test_many_labels_are_cut_short(tmp_path):
    for number in range(40):
        (tmp_path / f"set/patient{number:02}").mkdir(parents=True)
        (tmp_path / f"set/patient{number:02}/1.png").write_bytes(b"x")
    done = leukotree("import", "folder", "set", "m.csv", cwd=tmp_path)
    assert_refused(done, "'patient04' (1 images) and 35 more")
