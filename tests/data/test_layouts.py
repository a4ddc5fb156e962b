"""Every layout on a miniature tree as the data set is released; images are told apart by their grey level."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from reblurkit.data import PairedFolder
from reblurkit.data.layouts import LAYOUTS
from reblurkit.data.patterns import Pattern, common_wildcards
from reblurkit.errors import ArgumentError, DatasetNotFoundError, PairingError
from tests.data.test_paired import save

J = "RealBlur-J_ECC_IMCORR_centroid_itensity_ref"
R = "RealBlur-R_BM3D_ECC_IMCORR_centroid_itensity_ref"


def plant(root, **trees):
    """Make images at the paths, all of one grey level for each argument ``grey_LEVEL``."""
    for level, paths in trees.items():
        for path in paths.split():
            save(root / path, (6, 7), value=int(level.removeprefix("grey_")))


def pairs(*arguments, **options):
    """``{name: (blurry level, sharp level)}``."""
    dataset = PairedFolder(*arguments, **options)
    items = [dataset[index] for index in range(len(dataset))]
    level = {item["name"]: [round(float(item[key].mean()) * 255) for key in ("blurry", "sharp")] for item in items}
    return {name: tuple(levels) for name, levels in level.items()}


def test_converted_gopro_of_mmagic_and_of_nafnet(tmp_path):
    for split in ("train", "test"):
        plant(
            tmp_path,
            grey_1=f"{split}/blur/GOPR0372_07_00-000047.png",
            grey_2=f"{split}/sharp/GOPR0372_07_00-000047.png",
        )
        plant(tmp_path, grey_3=f"{split}/input/x.png {split}/input_crops/x_s001.png")
        plant(tmp_path, grey_4=f"{split}/target/x.png {split}/target_crops/x_s001.png")
    assert pairs(tmp_path, "folders", split="test") == {"test/blur/GOPR0372_07_00-000047": (1, 2)}
    assert pairs(tmp_path, "input-target") == {"train/input/x": (3, 4)}
    crops = {"blur": "input_crops", "sharp": "target_crops"}
    assert pairs(tmp_path, "input-target", **crops) == {"train/input_crops/x_s001": (3, 4)}
    with pytest.raises(DatasetNotFoundError, match=r"'val/input/\*\*/\*' in .* holds: test, train"):
        PairedFolder(tmp_path, "input-target", split="val")


def test_a_root_of_another_layout_is_recognised(tmp_path):
    plant(tmp_path, grey_1="train/v/blur_gamma/1.png", grey_2="train/v/sharp/1.png")
    with pytest.raises(DatasetNotFoundError, match=r"train holds: v; .*; it looks like the layout 'gopro'$"):
        PairedFolder(tmp_path)


def test_the_split_in_a_pattern(tmp_path):
    for index, split in enumerate(("train", "test")):
        plant(tmp_path, **{f"grey_{2 * index + 1}": f"{split}/in/a_blur.png"})
        plant(tmp_path, **{f"grey_{2 * index + 2}": f"{split}/out/a_sharp.png"})
    patterns = {"blur": "{split}/in/*_blur", "sharp": "{split}/out/*_sharp"}
    assert pairs(tmp_path, "folders", split="test", **patterns) == {"test/in/a_blur": (3, 4)}
    assert pairs(tmp_path, "folders", **patterns) == {"train/in/a_blur": (1, 2)}


@pytest.mark.parametrize("name", ["HIDE", "RealBlur_J", "RealBlur_R"])
def test_converted_test_sets_of_restormer(tmp_path, name):
    plant(tmp_path, grey_1=f"test/{name}/input/a.png", grey_2=f"test/{name}/target/a.png")
    assert pairs(tmp_path / "test", "input-target", split=name) == {f"{name}/input/a": (1, 2)}
    assert pairs(tmp_path / "test" / name, "input-target", split=None) == {"input/a": (1, 2)}


def test_reds(tmp_path):
    for split, clip in [("train", "000"), ("train", "001"), ("train", "020"), ("val", "000")]:
        place = f"{split}/{split}"
        plant(tmp_path, grey_1=f"{place}_blur/{clip}/00000000.png", grey_2=f"{place}_blur_jpeg/{clip}/00000000.jpg")
        plant(tmp_path, grey_3=f"{place}_sharp/{clip}/00000000.png")
    plant(tmp_path, grey_4="test/test_blur/000/00000000.png")
    train = pairs(tmp_path, "reds")
    assert train == {f"train/train_blur/{clip}/00000000": (1, 3) for clip in ("000", "001", "020")}
    assert pairs(tmp_path, "reds", split="val", blur="blur_jpeg") == {"val/val_blur_jpeg/000/00000000": (2, 3)}
    reds4 = pairs(tmp_path, "reds", split="reds4")
    rest = pairs(tmp_path, "reds", split="train-without-reds4")
    assert list(reds4) == ["train/train_blur/000/00000000", "train/train_blur/020/00000000"]
    assert reds4 | rest == train
    assert not set(reds4) & set(rest)
    with pytest.raises(DatasetNotFoundError, match=r"'test/test_sharp/<video>/<frame>' .*no public sharp images"):
        PairedFolder(tmp_path, "reds", split="test")
    with pytest.raises(ArgumentError, match="cannot be read without a split"):
        PairedFolder(tmp_path, "reds", split=None)


def realblur(root, folder=J, kind="J"):
    """Two scenes; the lists have a blank at every line's end, as the authors'."""
    for scene, split in (("scene001", "train"), ("scene230", "test")):
        place = f"{folder}/{scene}"
        lines = []
        for number, level in ((1, 10), (20, 30)):
            save(root / place / "blur" / f"blur_{number}.png", (6, 7), value=level)
            save(root / place / "gt" / f"gt_{number}.png", (6, 7), value=level + 1)
            lines.append(f"{place}/gt/gt_{number}.png {place}/blur/blur_{number}.png \n")
        (root / f"RealBlur_{kind}_{split}_list.txt").write_text("".join(lines))


@pytest.mark.parametrize(("layout", "folder", "kind"), [("realblur", J, "J"), ("realblur-r", R, "R")])
def test_realblur(tmp_path, layout, folder, kind):
    realblur(tmp_path, folder, kind)
    save(tmp_path / folder / "scene001" / "blur" / "blur_99.png")  # in no list
    train = {f"{folder}/scene001/blur/blur_1": (10, 11), f"{folder}/scene001/blur/blur_20": (30, 31)}
    test = {name.replace("scene001", "scene230"): levels for name, levels in train.items()}
    assert pairs(tmp_path, layout) == train
    assert pairs(tmp_path, layout, split="test") == pairs(tmp_path, layout, split="val") == test
    with pytest.raises(PairingError, match=r"1 of 5 images of .* have no partner \(blur_99.png\)"):
        PairedFolder(tmp_path, layout, split=None)
    (tmp_path / folder / "scene001" / "blur" / "blur_99.png").unlink()
    assert pairs(tmp_path, layout, split=None) == train | test
    with pytest.raises(ArgumentError, match="has no split 'valid'; it has: train, val, test"):
        PairedFolder(tmp_path, layout, split="valid")


def test_rsblur(tmp_path):
    for image, split in (("000001", "train"), ("000002", "val"), ("000003", "test")):
        place = f"RSBlur/0001/{image}"
        plant(tmp_path, grey_1=f"{place}/real_blur/real_blur.png", grey_2=f"{place}/avg65_img/avg_blur.png")
        plant(tmp_path, grey_3=f"{place}/gt/gt_sharp.png", grey_4=f"{place}/avg65_mask_100/avg_blur.png")
        (tmp_path / f"RSBlur_real_{split}.txt").write_text(
            f"{place}/gt/gt_sharp.png {place}/real_blur/real_blur.png\n\n"
        )
        (tmp_path / f"RSBlur_syn_{split}.txt").write_text(f"{place}/gt/gt_sharp.png {place}/avg65_img/avg_blur.png")
    for image, split in (("000001", "train"), ("000002", "val"), ("000003", "test")):
        assert pairs(tmp_path, "rsblur", split=split) == {f"RSBlur/0001/{image}/real_blur/real_blur": (1, 3)}
    synthetic = {"blur": "avg65_img", "list_file": "RSBlur_syn_{split}.txt"}
    assert pairs(tmp_path, "rsblur", **synthetic) == {"RSBlur/0001/000001/avg65_img/avg_blur": (2, 3)}
    assert len(pairs(tmp_path, "rsblur", split=None)) == 3
    with pytest.raises(PairingError, match=r"must name a sharp image .* blurry one like 'RSBlur.*/real_blur/<blurry>'"):
        PairedFolder(tmp_path, "rsblur", list_file="RSBlur_syn_{split}.txt")
    (tmp_path / "RSBlur_real_val.txt").unlink()
    with pytest.raises(DatasetNotFoundError, match=r"no list of pairs .*_val.txt; .* holds: RSBlur, .*datalist/RSBlur"):
        PairedFolder(tmp_path, "rsblur", split="val")


def test_hide(tmp_path):
    plant(tmp_path, grey_1="train/1.png test/test-close-ups/2.png test/test-long-shot/3.png")
    plant(tmp_path, grey_2="GT/1.png GT/2.png GT/3.png")
    assert pairs(tmp_path, "hide") == {"train/1": (1, 2)}
    test = {"test/test-close-ups/2": (1, 2), "test/test-long-shot/3": (1, 2)}
    assert pairs(tmp_path, "hide", split="test") == pairs(tmp_path, "hide", split="val") == test
    (tmp_path / "GT" / "3.png").unlink()
    with pytest.raises(PairingError, match=r"1 of 2 images of 'test/.*' have no partner \(3.png\)"):
        PairedFolder(tmp_path, "hide", split="test")
    with pytest.raises(PairingError, match="some files are both blurry and sharp"):
        PairedFolder(tmp_path, "hide", split=None)
    with pytest.raises(ArgumentError, match="lie in no folder of the name 'blur'"):
        PairedFolder(tmp_path, "hide", blur="blur")


def test_dvd(tmp_path):
    for video in ("720p_240fps_1", "720p_240fps_2", "IMG_0049"):
        place = f"quantitative_datasets/{video}"
        plant(tmp_path, grey_10=f"{place}/input/00000.jpg", grey_200=f"{place}/GT/00000.jpg")
    train, test = pairs(tmp_path, "dvd"), pairs(tmp_path, "dvd", split="test")
    assert train == {"quantitative_datasets/720p_240fps_1/input/00000": (10, 200)}
    assert list(test) == [f"quantitative_datasets/{video}/input/00000" for video in ("720p_240fps_2", "IMG_0049")]
    assert pairs(tmp_path, "dvd", split=None) == train | test


def test_bsd(tmp_path):
    for split in ("train", "valid", "test"):
        plant(tmp_path, grey_1=f"BSD_3ms24ms/{split}/000/Blur/RGB/00000000.png")
        plant(tmp_path, grey_2=f"BSD_3ms24ms/{split}/000/Sharp/RGB/00000000.png")
    for split, folder in (("train", "train"), ("val", "valid"), ("test", "test")):
        expected = {f"{folder}/000/Blur/RGB/00000000": (1, 2)}
        assert pairs(tmp_path / "BSD_3ms24ms", "bsd", split=split) == expected
    with pytest.raises(DatasetNotFoundError, match=r"holds: BSD_3ms24ms; .*the folder of one exposure time"):
        PairedFolder(tmp_path, "bsd")


def test_lai(tmp_path):
    for number, scene in enumerate(("manmade_01", "text_05")):
        save(tmp_path / "ground_truth" / f"{scene}.png", (6, 7), value=number)
        for folder, shake, kernel in itertools.product(("uniform", "nonuniform"), ("kernel", "gyro"), ("01", "02")):
            if (folder == "uniform") == (shake == "kernel"):
                save(tmp_path / folder / f"{scene}_{shake}_{kernel}.png", (6, 7), value=100)
    uniform = pairs(tmp_path, "lai", split="test")
    assert uniform == {
        "uniform/manmade_01_kernel_01": (100, 0),
        "uniform/manmade_01_kernel_02": (100, 0),
        "uniform/text_05_kernel_01": (100, 1),
        "uniform/text_05_kernel_02": (100, 1),
    }
    assert "nonuniform/text_05_gyro_02" in pairs(tmp_path, "lai", split="test", blur="nonuniform")
    with pytest.raises(ArgumentError, match="'lai' has no split 'train'; it has: val, test"):
        PairedFolder(tmp_path, "lai")
    save(tmp_path / "ground_truth" / "people_01.png", (6, 7))
    with pytest.raises(PairingError, match=r"1 of 3 of 'ground_truth/<scene>' have none \(people_01.png\)"):
        PairedFolder(tmp_path, "lai", split="test")
    (tmp_path / "ground_truth" / "text_05.png").rename(tmp_path / "ground_truth" / "text_06.png")
    with pytest.raises(PairingError, match=r"2 of 4 images of 'uniform/.*' have no partner"):
        PairedFolder(tmp_path, "lai", split="test")


# The archives are unpacked with and without a folder of their own.
@pytest.mark.parametrize("folder", ["", "BlurryImages/"])
def test_kohler(tmp_path, folder):
    for image, kernel in itertools.product((1, 2), (1, 12)):
        save(tmp_path / f"{folder}Blurry{image}_{kernel}.png", (6, 7), value=100)
        for frame in (1, 10, 100):
            truth = f"Image{image}/Kernel{kernel}/GroundTruth{image}_{kernel}_{frame}.png"
            save(tmp_path / truth, (6, 7), value=100 * (image - 1) + kernel + frame % 99)
    expected = {f"{folder}Blurry{i}_{k}": (100, 100 * (i - 1) + k + 1) for i in (1, 2) for k in (1, 12)}
    assert pairs(tmp_path, "kohler", split="test") == expected
    tenth = {name: (100, sharp + 9) for name, (_, sharp) in expected.items()}
    assert pairs(tmp_path, "kohler", split=None, sharp="10") == tenth
    (tmp_path / "Image1" / "Kernel12" / "GroundTruth1_12_100.png").unlink()
    with pytest.raises(PairingError, match=r"1 of 4 images of .* have no partner \(Blurry1_12.png\)"):
        PairedFolder(tmp_path, "kohler", split="test")
    save(tmp_path / "results" / "Blurry1_1.png", (6, 7))
    with pytest.raises(PairingError, match="have the same name"):
        PairedFolder(tmp_path, "kohler", split="test", sharp="1")


def test_videos_and_frames_are_found_again_in_the_names(tmp_path):
    """Of the sets that are videos, a video's frames lie beside each other in order."""
    patterns = {"gopro": "train/{}/blur_gamma/{}", "reds": "train/train_blur/{}/{}", "bsd": "train/{}/Blur/RGB/{}"}
    patterns["dvd"] = "quantitative_datasets/{}/input/{}"
    sharp = {"blur_gamma": "sharp", "train_blur": "train_sharp", "Blur": "Sharp", "input": "GT"}
    names = [(video, f"{frame:08}") for video in ("000a", "001") for frame in (9, 10, 11)]
    for layout, pattern in patterns.items():
        for video, frame in names:
            path = f"{layout}/{pattern.format(video, frame)}.png"
            plant(tmp_path, grey_1=path)
            for blurry, partner in sharp.items():
                path = path.replace(f"/{blurry}/", f"/{partner}/")
            plant(tmp_path, grey_2=path)
        dataset = PairedFolder(tmp_path / layout, layout)
        assert [pair.name for pair in dataset.pairs] == [pattern.format(video, frame) for video, frame in names]


def test_lists_are_checked_line_by_line(tmp_path):
    realblur(tmp_path)
    own = tmp_path / "own.txt"
    sharp, blurry = f"{J}/scene001/gt/gt_1.png", f"{J}/scene001/blur/blur_1.png"

    def read(text):
        own.write_text(text)
        return pairs(tmp_path, "realblur", list_file="own.txt")

    assert read(f"{sharp}\t{blurry}\n") == {f"{J}/scene001/blur/blur_1": (10, 11)}
    for line in (f"{blurry} {sharp}", sharp, f"{sharp} {blurry} 3", f"{sharp} {blurry.replace('_1.', '_20.')}"):
        with pytest.raises(PairingError, match=r"line 2 of .*own\.txt must name a sharp image like"):
            read(f"{sharp} {blurry}\n{line}\n")
    for outside in ("/etc/passwd", f"../{blurry}", f"{J}/../../{blurry}"):
        with pytest.raises(ArgumentError, match=r"lie below its root .* line 1 of .*own\.txt has"):
            read(f"{sharp} {outside}\n")
    (tmp_path / J / "scene001" / "blur" / "blur_7.png").touch()
    seven = f"{sharp} {blurry}".replace("_1.", "_7.")
    with pytest.raises(DatasetNotFoundError, match=r"names 2 pairs, 1 of whose files are not .*\(.*/gt/gt_7.png\)"):
        read(f"{sharp} {blurry}\n{seven}")
    with pytest.raises(DatasetNotFoundError, match="names 0 pairs"):
        read("\n")


def test_a_list_of_ones_own_chooses_pairs_of_any_layout(tmp_path):
    plant(tmp_path, grey_1="train/blur/a.png train/blur/b.png train/blur/lonely.png", grey_2="train/sharp/a.png")
    plant(tmp_path, grey_2="train/sharp/b.png")
    (tmp_path / "train_few.txt").write_text("train/sharp/b.png train/blur/b.png")
    assert pairs(tmp_path, list_file="{split}_few.txt") == {"train/blur/b": (1, 2)}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_wrong_tree_is_told_with_what_was_looked_for_and_found(tmp_path, layout):
    plant(tmp_path, grey_1="somewhere/else.png")
    with pytest.raises(DatasetNotFoundError, match=r"(no images match '.+'|no list of pairs .+).* holds?: somewhere"):
        PairedFolder(tmp_path, layout, split="test")


def test_wildcards():
    """Against hand-made answers."""
    deep = Path("v/a/b/1.png")
    assert Pattern("<video>/**/*").match(deep) == {"video": "v", "_1": "a/b/", "_2": "1"}
    assert Pattern("<place/><frame>.png").match(deep) == {"place": "v/a/b/", "frame": "1"}
    assert Pattern("<a>/<a>").match(Path("x/x.png")) == {"a": "x"}
    assert Pattern("<a>/<a>").match(Path("x/y.png")) is None
    assert Pattern("*").match(Path("notes.txt")) is None
    assert common_wildcards(Pattern("<a>/*/<b>"), Pattern("*/<a>/<c>")) == ["_1", "a"]
    with pytest.raises(PairingError, match=r"have not equally many '\*'"):
        common_wildcards(Pattern("*/*"), Pattern("*"))


def test_named_wildcards_of_ones_own(tmp_path):
    plant(tmp_path, grey_1="shots/cat_short.png shots/cat_long.png", grey_2="still/cat.png")
    own = {"blur": "shots/<scene>_<exposure>", "sharp": "still/<scene>"}
    assert pairs(tmp_path, **own) == {"shots/cat_long": (1, 2), "shots/cat_short": (1, 2)}


def test_lists_from_editors_and_files_that_are_no_lists(tmp_path):
    plant(tmp_path, grey_1="train/blur/1.png train/sharp/1.png")
    line = "train/sharp/1.png train/blur/1.png"
    (tmp_path / "list.txt").write_text(line, encoding="utf-8-sig")
    assert len(PairedFolder(tmp_path, list_file="list.txt")) == 1
    (tmp_path / "list.txt").write_text(line, encoding="utf-16")
    with pytest.raises(PairingError, match="UTF-8"):
        PairedFolder(tmp_path, list_file="list.txt")
    (tmp_path / "list.txt").write_text("x" * 10_000)
    with pytest.raises(PairingError) as refusal:
        PairedFolder(tmp_path, list_file="list.txt")
    assert len(str(refusal.value)) < 1000


@pytest.mark.parametrize("options", [{"crop": 1.5}, {"crop": "8"}, {"seed": -1}])
def test_numbers_that_make_no_sense(tmp_path, options):
    plant(tmp_path, grey_1="train/blur/1.png train/sharp/1.png")
    with pytest.raises(ArgumentError, match="at least"):
        PairedFolder(tmp_path, **options)
