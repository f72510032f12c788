"""Small data sets on disk, in exactly the layouts that the real ones have."""

import gzip
import hashlib
import io
import pickle
import struct

import numpy as np
from PIL import Image
from seeds import numpy_rng

from dwlt_lib.config.datasets import CATALOGUE

WNIDS = ("n01440764", "n01443537", "n01484850")


SCALE = 1  # sides of pictures are so many times those written below, once a module sets it


def picture(path, seed, size=(48, 36)):
    """A smooth picture of noise, so that JPEG keeps it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = numpy_rng(seed).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    size = tuple(SCALE * side for side in size)
    Image.fromarray(noise).resize(size, Image.Resampling.BILINEAR).save(path, quality=95)
    return path


def row(name, **changes):
    """The catalogue's row, reduced to what the small files hold."""
    return CATALOGUE[name].model_copy(update=changes)


def imagenet(root, train=4, val=2):
    """train/WNID/WNID_7.JPEG, val/WNID/ILSVRC2012_val_00000001.JPEG.

    Sizes differ, as they do in ImageNet.
    """
    for label, wnid in enumerate(WNIDS):
        for i in range(train):
            picture(
                root / "train" / wnid / f"{wnid}_{10 * i}.JPEG",
                100 * label + i,
                (40 + 8 * i, 36 + 5 * label),
            )
        for i in range(val):
            name = f"ILSVRC2012_val_{3 * i + label + 1:08d}.JPEG"
            picture(root / "val" / wnid / name, 1000 + 10 * label + i, (36 + label, 48 + 8 * i))
    return row(
        "imagenet", classes=3, size=28, path=str(root), train_images=3 * train, test_images=3 * val
    )


def cub(root):
    """images.txt, image_class_labels.txt, train_test_split.txt, classes.txt, images/NNN.Name/*.jpg.

    3 classes of 5.
    """
    classes = ("001.Black_footed_Albatross", "002.Laysan_Albatross", "003.Sooty_Albatross")
    lines = {name: [] for name in ("images", "image_class_labels", "train_test_split", "classes")}
    lines["classes"] = [f"{i} {name}" for i, name in enumerate(classes, 1)]
    for i in range(15):
        name = f"{classes[i // 5]}/{classes[i // 5][4:]}_{7 * i:04d}_{796000 + i}.jpg"
        picture(root / "images" / name, i, (50, 40) if i % 2 else (36, 44))
        lines["images"].append(f"{i + 1} {name}")
        lines["image_class_labels"].append(f"{i + 1} {i // 5 + 1}")
        lines["train_test_split"].append(f"{i + 1} {int(i % 5 not in (1, 3))}")
    for name, text in lines.items():
        (root / f"{name}.txt").write_text("\n".join(text) + "\n")
    return row("cub200", classes=3, size=28, path=str(root), train_images=9, test_images=6)


def visda(root):
    """train/ renderings as PNG, validation/ photographs as JPEG, each with image_list.txt
    "CLASS/file label".
    """
    for split, suffix, count in (("train", "png", 4), ("validation", "jpg", 2)):
        lines = []
        for label, name in enumerate(("aeroplane", "bicycle", "bus")):
            for i in range(count):
                file = f"{name}/{split}_{label}_{i}__{i}_{90 * i}.{suffix}"
                picture(
                    root / split / file,
                    50 * label + i + (500 if split == "validation" else 0),
                    (48, 30),
                )
                lines.append(f"{file} {label}")
        (root / split / "image_list.txt").write_text("\n".join(lines) + "\n")
    return row("visda17", classes=3, size=28, path=str(root), train_images=12, test_images=6)


def tiny_imagenet(root):
    """train/WNID/images/WNID_7.JPEG with boxes beside them, val/images/val_7.JPEG with their list,
    test/images without one.
    """
    lines = []
    for label, wnid in enumerate(WNIDS):
        for i in range(4):
            picture(root / "train" / wnid / "images" / f"{wnid}_{i}.JPEG", 10 * label + i, (64, 64))
        (root / "train" / wnid / f"{wnid}_boxes.txt").write_text(f"{wnid}_0.JPEG\t0\t10\t63\t58\n")
        for i in (label, label + 3):
            picture(root / "val" / "images" / f"val_{i}.JPEG", 1000 + i, (64, 64))
            lines.append((i, f"val_{i}.JPEG\t{wnid}\t0\t32\t44\t62\n"))
    (root / "val" / "val_annotations.txt").write_text("".join(line for _, line in sorted(lines)))
    picture(root / "test" / "images" / "test_0.JPEG", 7, (64, 64))
    return row("tiny_imagenet", classes=3, path=str(root), train_images=12, test_images=6)


def gtsrb(root, tracks=2, frames=3):
    """GTSRB/Training/CLASS/TRACK_FRAME.ppm, GTSRB/Final_Test/Images/NUMBER.ppm, GT-final_test.csv.

    Sizes differ, as they do in GTSRB, where a track has 30 frames.
    """
    lines = ["Filename;Width;Height;Roi.X1;Roi.Y1;Roi.X2;Roi.Y2;ClassId"]
    for label in range(3):
        folder = root / "GTSRB" / "Training" / f"{label:05d}"
        for track in range(tracks):
            for frame in range(frames):
                name = f"{track:05d}_{frame:05d}.ppm"
                picture(folder / name, 100 * label + 10 * track + frame, (25 + frame, 27))
        (folder / f"GT-{label:05d}.csv").write_text(lines[0] + "\n")
    for i, label in enumerate((2, 0, 1, 1, 0, 2)):
        name = f"{i:05d}.ppm"
        picture(root / "GTSRB" / "Final_Test" / "Images" / name, 1000 + i, (53, 54))
        lines.append(f"{name};53;54;6;5;48;49;{label}")
    (root / "GT-final_test.csv").write_text("\r\n".join(lines) + "\r\n")
    counts = {"train_images": 3 * tracks * frames, "test_images": 6}
    return row("gtsrb", classes=3, path=str(root), **counts)


class Python2Pickler(pickle._Pickler):
    """Writes bytes as Python 2 wrote its str, which the real batches are made of."""

    dispatch = dict(pickle._Pickler.dispatch)

    def save_str(self, text):
        self.write(pickle.BINSTRING + struct.pack("<i", len(text)) + text)

    dispatch[bytes] = save_str


def python2_pickle(content):
    file = io.BytesIO()
    Python2Pickler(file, protocol=2).dump(content)
    return file.getvalue()


def cifar(root, monkeypatch, name="cifar10"):
    """The python version's pickled batches: {"data": (n,3072), "labels": [...]}, six files and
    their metadata.

    torchvision's reader knows the real files' md5 sums; it is told those of these.
    """
    from torchvision import datasets

    reader = {"cifar10": datasets.CIFAR10, "cifar100": datasets.CIFAR100}[name]
    rng, key = numpy_rng(0), {"cifar10": b"labels", "cifar100": b"fine_labels"}[name]
    classes, folder, wholes = CATALOGUE[name].classes, root / reader.base_folder, {}
    folder.mkdir(parents=True)

    def put(file, content):
        (folder / file).write_bytes(python2_pickle(content))
        return hashlib.md5((folder / file).read_bytes()).hexdigest()

    for attribute, count in (("train_list", 20), ("test_list", 10)):
        sums, wholes[attribute] = [], []
        for file, _ in getattr(reader, attribute):
            x, y = (
                rng.integers(0, 256, (count, 3072), dtype=np.uint8),
                [int(i) % classes for i in range(count)],
            )
            wholes[attribute].append((x, y))
            sums.append([file, put(file, {b"data": x, key: y, b"batch_label": b"of images"})])
        monkeypatch.setattr(reader, attribute, sums)
    meta = reader.meta
    labels = put(meta["filename"], {meta["key"].encode(): [b"class"] * classes})
    monkeypatch.setattr(reader, "meta", {**meta, "md5": labels})
    return wholes


def svhn(root, monkeypatch):
    """train_32x32.mat and test_32x32.mat.

    X uint8 (32,32,3,N), y (N,1) from 1, 10 standing for the digit 0.
    """
    from scipy.io import savemat
    from torchvision import datasets

    rng, wholes, table = numpy_rng(1), {}, dict(datasets.SVHN.split_list)
    root.mkdir(parents=True, exist_ok=True)
    for split, count in (("train", 30), ("test", 20)):
        x, y = rng.integers(0, 256, (32, 32, 3, count), dtype=np.uint8), np.arange(count) % 10 + 1
        savemat(root / f"{split}_32x32.mat", {"X": x, "y": y[:, None].astype(np.uint8)})
        md5 = hashlib.md5((root / f"{split}_32x32.mat").read_bytes()).hexdigest()
        table[split], wholes[split] = [*table[split][:2], md5], (x, y)
    monkeypatch.setattr(datasets.SVHN, "split_list", table)
    return wholes


def fashion_mnist(root, monkeypatch):
    """FashionMNIST/raw/: images after a header of 16 bytes and labels after one of 8, packed.

    torchvision's reader knows the real files' md5 sums; it is told those of these.
    """
    from torchvision import datasets

    rng, wholes, resources = numpy_rng(2), {}, []
    (root / "FashionMNIST" / "raw").mkdir(parents=True)
    for split, prefix, count in (("train", "train", 30), ("test", "t10k", 20)):
        x, y = rng.integers(0, 256, (count, 28, 28), dtype=np.uint8), np.arange(count) % 10
        wholes[split] = x, y
        for kind, array in (("images-idx3", x), ("labels-idx1", y.astype(np.uint8))):
            head = struct.pack(f">{1 + array.ndim}i", 2048 + array.ndim, *array.shape)
            file = root / "FashionMNIST" / "raw" / f"{prefix}-{kind}-ubyte.gz"
            file.write_bytes(gzip.compress(head + array.tobytes()))
            resources.append((file.name, hashlib.md5(file.read_bytes()).hexdigest()))
    monkeypatch.setattr(datasets.FashionMNIST, "resources", resources)
    return wholes
