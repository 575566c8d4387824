"""Every layout gives the same images and labels, and what is not whole is refused in one sentence."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from calibration.data import Dataset, DatasetError, Preprocessing, open_dataset
from calibration.data.dataset import Images
from qtorch_relay.errors import QTorchRelayError
from tests.calibration.data.trees import sort_into_folders, synsets, write_flat, write_image, write_meta

SMALL = Preprocessing(resize=10, crop=8)
BY_ID = synsets(6)
IDS = [3, 1, 6, 6, 2, 5, 4, 1, 3, 2]
TRUTH = "ILSVRC2012_validation_ground_truth.txt"


@pytest.fixture
def flat(tmp_path: Path) -> Path:
    write_flat(tmp_path / "val", BY_ID, IDS)
    return tmp_path / "val"


def devkit(flat: Path) -> Path:
    return flat.parent / "ILSVRC2012_devkit_t12" / "data"


def test_labels_are_in_sorted_synset_order_in_both_layouts(flat: Path) -> None:
    sort_into_folders(flat, flat.parent / "sorted", BY_ID, IDS)
    ours, folders = open_dataset(flat, SMALL), open_dataset(flat.parent / "sorted", SMALL)
    expected = [sorted(BY_ID).index(BY_ID[i - 1]) for i in IDS]
    assert ours.labels.tolist() == expected
    assert ours.classes == folders.classes == tuple(sorted(BY_ID))
    assert expected != [i - 1 for i in IDS]  # else the order of the devkit would do
    by_name = dict(zip((name.split("/")[1] for name in folders.ids), folders.labels.tolist(), strict=True))
    assert [by_name[name] for name in ours.ids] == expected
    assert "ImageNet" in ours.name
    assert "ImageNet" in folders.name


@pytest.mark.parametrize("form", ["synsets", "caffe", "kaggle", "text"])
def test_other_forms_of_the_ground_truth_tell_the_same_labels(flat: Path, form: str) -> None:
    expected, classes = open_dataset(flat, SMALL).labels.tolist(), sorted(BY_ID)
    names = [f"ILSVRC2012_val_{i:08d}" for i in range(1, len(IDS) + 1)]
    file, order = flat.parent / "labels", flat.parent / "order.txt"
    options: dict[str, Path] = {"labels_file": file}
    if form == "synsets":
        file.write_text("\n".join(BY_ID[i - 1] for i in IDS))
    elif form == "caffe":
        file.write_text("\n".join(f"{name}.JPEG {label}" for name, label in zip(names, expected, strict=True)))
    elif form == "kaggle":
        rows = [f"{name},{classes[label]} 85 1 499 272" for name, label in zip(names, expected, strict=True)]
        random.Random(0).shuffle(rows)
        file.write_text("\n".join(["ImageId,PredictionString", *rows]))
    else:
        (devkit(flat) / "meta.mat").unlink()
        order.write_text("\n".join(f"{name} some words" for name in BY_ID))
        options = {"synsets_file": order}
    assert open_dataset(flat, SMALL, **options).labels.tolist() == expected


def test_images_are_decoded_in_order_by_any_number_of_workers(flat: Path) -> None:
    dataset = open_dataset(flat, SMALL)
    order = [7, 0, 3, 3, 9, 1, 2]
    runs = [list(dataset.batches(order, 3, workers)) for workers in (0, 1, 4, None)]
    for run in runs:
        assert [batch.indices.tolist() for batch in run] == [[7, 0, 3], [3, 9, 1], [2]]
        for batch, first in zip(run, runs[0], strict=True):
            np.testing.assert_array_equal(batch.images, first.images)
            assert batch.labels.tolist() == dataset.labels[batch.indices].tolist()
            assert batch.images.dtype == np.float32
    assert runs[0][0].images.shape == (3, 3, 8, 8)


@pytest.mark.parametrize("damage", ["truncated", "text", "gone", "empty"])
def test_a_broken_image_is_told_with_its_path_and_the_others_are_read(flat: Path, damage: str) -> None:
    dataset, path = open_dataset(flat, SMALL), flat / "ILSVRC2012_val_00000002.JPEG"
    data = path.read_bytes()
    if damage == "gone":
        path.unlink()
    else:
        path.write_bytes({"truncated": data[: len(data) // 2], "text": b"no image", "empty": b""}[damage])
    [batch] = dataset.batches(range(4), 4)
    assert batch.indices.tolist() == [0, 2, 3]
    assert len(batch.images) == 3
    [broken] = batch.broken
    assert (broken.index, broken.path) == (1, str(path))
    assert broken.reason
    assert str(path) not in broken.reason


def test_only_a_bounded_number_of_images_is_read_ahead() -> None:
    class Counting:
        shape, preprocessing, contents, read_until = (1, 2, 2), None, "", 0

        def read(self, index: int) -> np.ndarray:
            self.read_until = max(self.read_until, index)
            return np.zeros(self.shape, np.float32)

    images = Counting()
    source: Images = images
    dataset = Dataset("counted", source, np.zeros(1000, np.int64), tuple(map(str, range(1000))))
    batches = dataset.batches(range(1000), 10, workers=2)
    for number in range(1, 20):
        next(batches)
        # what was given, one more for each of it, and what two workers were given ahead
        assert images.read_until < number * 10 + 10 + 4
    batches.close()


def test_images_are_spread_over_sorted_classes() -> None:
    dataset = open_dataset("digits")
    assert len(dataset) == 360
    assert dataset.shape == (1, 8, 8)
    assert dataset.spread(4).tolist() == [0, 90, 180, 270]
    assert dataset.spread(None).tolist() == list(range(360))
    assert open_dataset("digits-train").fingerprint != dataset.fingerprint
    with pytest.raises(DatasetError, match=r"361 images are asked for; accepted are 1 to 360"):
        dataset.spread(361)


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_arrays_are_read_row_by_row(tmp_path: Path, save: Callable[..., None]) -> None:
    rng = np.random.default_rng(0)
    images, labels = rng.standard_normal((5, 2, 3, 4)).astype(np.float32), np.arange(5, dtype=np.uint8)
    save(tmp_path / "a.npz", images=images, labels=labels)
    dataset = open_dataset(tmp_path / "a.npz")
    assert dataset.labels.tolist() == [0, 1, 2, 3, 4]
    dataset.check_classes(5)
    with pytest.raises(
        DatasetError, match="2 labels are out of range, such as 3 of 3, 4 of 4; the model has 3 classes"
    ):
        dataset.check_classes(3)
    [batch] = dataset.batches([4, 0], 2)
    np.testing.assert_array_equal(batch.images, images[[4, 0]])
    save(tmp_path / "f.npz", images=np.asfortranarray(images), labels=labels)
    [batch] = open_dataset(tmp_path / "f.npz").batches([4, 0], 2)
    np.testing.assert_array_equal(batch.images, images[[4, 0]])


@pytest.mark.parametrize("shape", [(3, 12, 9), (3, 12, 9, 3)])
def test_pixels_in_arrays_are_preprocessed_like_files(tmp_path: Path, shape: tuple[int, ...]) -> None:
    from PIL import Image

    pixels = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    np.savez(tmp_path / "a.npz", images=pixels, labels=np.zeros(3, np.int32))
    [batch] = open_dataset(tmp_path / "a.npz", SMALL).batches([2], 1)
    np.testing.assert_array_equal(batch.images[0], SMALL(Image.fromarray(pixels[2])))


def test_the_fingerprint_follows_names_labels_and_preprocessing(flat: Path) -> None:
    first = open_dataset(flat, SMALL).fingerprint
    assert open_dataset(flat, SMALL).fingerprint == first
    assert open_dataset(flat, Preprocessing(resize=10, crop=8, interpolation="bicubic")).fingerprint != first
    (devkit(flat) / TRUTH).write_text("".join(f"{i}\n" for i in reversed(IDS)))
    assert open_dataset(flat, SMALL).fingerprint != first


def fewer_images(flat: Path) -> None:
    (flat / "ILSVRC2012_val_00000004.JPEG").unlink()


def more_images(flat: Path) -> None:
    write_image(flat / "ILSVRC2012_val_00000011.JPEG", 0)


def no_truth(flat: Path) -> None:
    (devkit(flat) / TRUTH).unlink()


def no_meta(flat: Path) -> None:
    (devkit(flat) / "meta.mat").unlink()


def sorted_meta(flat: Path) -> None:
    write_meta(devkit(flat) / "meta.mat", sorted(BY_ID))


def damaged_meta(flat: Path) -> None:
    (devkit(flat) / "meta.mat").write_bytes(b"not a MATLAB file, and long enough to be looked at as if it were one" * 9)


def bad_id(flat: Path) -> None:
    (devkit(flat) / TRUTH).write_text("".join(f"{i}\n" for i in [*IDS[:-1], 7]))


def no_number(flat: Path) -> None:
    (devkit(flat) / TRUTH).write_text("3\nfox\n")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (fewer_images, r"there are 9 images, .* has labels of 10; missing: ILSVRC2012_val_00000004; .*--incomplete"),
        (more_images, r"there is no label for 1 images, such as ILSVRC2012_val_00000011.JPEG"),
        (no_truth, r"labels are not there: put the devkit's .* or give a file .*--labels FILE"),
        (no_meta, r"meta.mat: no such file; the ground truth has ILSVRC2012_IDs, .*--synsets FILE"),
        (sorted_meta, r"the synsets are sorted, and ILSVRC2012_IDs do not number them in that order"),
        (damaged_meta, r"is not the devkit's meta.mat"),
        (bad_id, r"line 10: the label 7 is out of range; accepted are the ILSVRC2012_IDs 1 to 6"),
        (no_number, r"line 2: 'fox' is neither an ILSVRC2012_ID nor a synset"),
    ],
)
def test_what_is_not_whole_is_refused(flat: Path, change: Callable[[Path], None], message: str) -> None:
    change(flat)
    with pytest.raises(QTorchRelayError, match=message):
        open_dataset(flat, SMALL)


def test_missing_images_can_be_accepted(flat: Path) -> None:
    whole = open_dataset(flat, SMALL).labels.tolist()
    fewer_images(flat)
    assert open_dataset(flat, SMALL, incomplete=True).labels.tolist() == whole[:3] + whole[4:]


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    for name in ("cat", "dog", "owl"):
        (tmp_path / "tree" / name).mkdir(parents=True)
        write_image(tmp_path / "tree" / name / "1.png", len(name))
        write_image(tmp_path / "tree" / name / "2.JPEG", len(name))
        (tmp_path / "tree" / name / "notes.txt").write_text("no image")
    return tmp_path / "tree"


def test_class_folders_are_sorted_or_in_the_order_of_a_list(tree: Path) -> None:
    assert open_dataset(tree, SMALL).ids == (
        "cat/1.png",
        "cat/2.JPEG",
        "dog/1.png",
        "dog/2.JPEG",
        "owl/1.png",
        "owl/2.JPEG",
    )
    (tree.parent / "classes").write_text("owl\ncat\ndog\n")
    dataset = open_dataset(tree, SMALL, classes_file=tree.parent / "classes")
    assert dataset.classes == ("owl", "cat", "dog")
    assert dataset.ids[0] == "owl/1.png"
    dataset.check_classes(3)
    with pytest.raises(DatasetError, match="there are 3 classes, the model has 4; a class without a folder moves"):
        dataset.check_classes(4)


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        ("cat\ndog\nowl\nfox\n", "1 class has no folder: fox"),
        ("cat\ndog\n", "1 folder has no place in the list of classes: owl"),
        ("cat\n../dog\nowl\n", "'../dog' is no name of a folder"),
        ("cat\ncat\n", "a name is there twice"),
        ("", "it is empty"),
    ],
)
def test_folders_and_a_list_of_classes_must_agree(tree: Path, classes: str, message: str) -> None:
    (tree.parent / "classes").write_text(classes)
    with pytest.raises(DatasetError, match=message):
        open_dataset(tree, SMALL, classes_file=tree.parent / "classes")


def test_an_empty_class_folder_is_refused(tree: Path) -> None:
    (tree / "emu").mkdir()
    with pytest.raises(DatasetError, match="emu: the class folder has no images"):
        open_dataset(tree, SMALL)


def test_splits_are_no_classes(tree: Path) -> None:
    tree.rename(tree.with_name("val"))
    with pytest.raises(DatasetError, match=r"holds val, which are no classes; give .*/val"):
        open_dataset(tree.parent, SMALL)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"images": np.zeros((2, 1, 3, 3), np.float32)}, "there is no array named labels"),
        ({"images": np.zeros((2, 1, 3, 3), np.float32), "labels": np.zeros(3, int)}, "labels are int64 .3."),
        (
            {"images": np.zeros((2, 3, 3), np.float64), "labels": np.zeros(2, int)},
            "images are float64 .2, 3, 3.; it needs",
        ),
        ({"images": np.zeros((2, 1, 3, 3), np.float32), "labels": np.zeros(2)}, "labels are float64"),
        ({"images": np.zeros((0, 1, 3, 3), np.float32), "labels": np.zeros(0, int)}, "there are no images"),
    ],
)
def test_arrays_of_another_form_are_refused(tmp_path: Path, arrays: dict[str, np.ndarray], message: str) -> None:
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(DatasetError, match=message):
        open_dataset(tmp_path / "a.npz")


def test_objects_are_not_unpickled(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", images=np.array([{}, {}], object), labels=np.zeros(2, int))
    with pytest.raises(DatasetError, match="Python objects"):
        open_dataset(tmp_path / "a.npz")


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("missing", "no such file or folder; accepted are"),
        ("a.txt", "is no set of images; accepted are"),
        ("e", "neither"),
    ],
)
def test_what_is_no_dataset_is_refused(tmp_path: Path, path: str, message: str) -> None:
    (tmp_path / "a.txt").touch()
    (tmp_path / "e").mkdir()
    with pytest.raises(DatasetError, match=message):
        open_dataset(tmp_path / path)


def test_what_means_nothing_for_the_images_is_refused(tmp_path: Path, tree: Path) -> None:
    with pytest.raises(DatasetError, match="preprocessed already"):
        open_dataset("digits", SMALL)
    with pytest.raises(DatasetError, match="--synsets means nothing"):
        open_dataset(tree, SMALL, synsets_file=tmp_path / "meta.mat")
