"""Batches on the device: of images that lie there as bytes, or of files decoded as they are needed.

Bytes become floats in [0,1] only in the batch that is used. Both ways give the same images.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from dwlt_lib.config.datasets import LISTED, DataSet
from dwlt_lib.data import decoding
from dwlt_lib.data.augmentation import augment, evaluation_view, side_before_crop
from dwlt_lib.data.folders import Listing
from dwlt_lib.data.loading import dataset_row, groups, listing, load

MAX_RESIDENT_BYTES = 2**31  # a split of image files that is larger is streamed


@dataclass(frozen=True)
class Images:
    """A split, or a part of one: bytes on a device, or files that are decoded for each batch."""

    x: Tensor | Listing
    """uint8 (N,3,H,W), square, where y is; or N files"""
    y: Tensor
    """int64 (N,), the labels, on the device that batches are wanted on"""
    row: DataSet
    """The data set, which says how the network sees the images"""
    groups: Tensor | None = None
    """int64 (N,), on the CPU: pictures of one thing have one number; None where none is known"""

    def __len__(self) -> int:
        """The number of images N."""
        return len(self.y)

    @property
    def device(self) -> torch.device:
        """Where batches are."""
        return self.y.device

    def take(self, index: Tensor) -> Images:
        """Some of the images; of files nothing is decoded yet.

        Args:
            index: int64 (K,), places in 0..N-1, in any order.

        Returns:
            K images, in the order of `index`.
        """
        on_cpu, index = index.cpu(), index.to(self.device)
        x = self.x.take(on_cpu.numpy()) if isinstance(self.x, Listing) else self.x[index]
        groups = None if self.groups is None else self.groups[on_cpu]
        return Images(x, self.y[index], self.row, groups)

    def batches(
        self, indices: Iterable[Tensor], rng: torch.Generator | None = None
    ) -> Iterator[tuple[Tensor, Tensor, DataSet]]:
        """The images of each index in `indices`; files are decoded while earlier batches are used.

        Args:
            indices: an int64 tensor (B,) for each batch.
            rng: a generator on the CPU: of a row with the augmentation resized_crop, each file is
                cropped at random, by a seed of its own that is drawn in the order of `indices`.
                None: files are resized as evaluation does it. Of bytes nothing is drawn.

        Yields:
            Of each batch, in order: x, uint8 (B,3,H,W); y, int64 (B,); the row, which asks for no
            further crop where files were cropped.

        Raises:
            ValueError: one line, for a file that is missing, or is not a whole image.
        """
        if isinstance(self.x, Tensor):
            for index in indices:
                index = index.to(self.device)
                yield self.x[index], self.y[index], self.row
            return
        indices = list(indices)
        order, row = torch.cat(indices).cpu(), self.row
        side, seeds = side_before_crop(row), None
        if rng is not None and "resized_crop" in row.augment:
            side, seeds = row.size, torch.randint(2**62, (len(order),), generator=rng)
            others = tuple(name for name in row.augment if name != "resized_crop")
            row = row.model_copy(update={"augment": others, "crop": 1.0})
        decoder = decoding.ImageDecoder(
            self.x.root, self.x.names[order.numpy()], side, row.resize, row.scale, seeds
        )
        sizes = [len(index) for index in indices]
        decoded = decoding.decode_batches(decoder, sizes, pin_memory=self.device.type == "cuda")
        for x, index in zip(decoded, indices, strict=True):
            yield x.to(self.device, non_blocking=True), self.y[index.to(self.device)], row

    def floats(self) -> Tensor:
        """All images as evaluation sees them.

        Returns:
            float32 (N,3,size,size) in [0,1].
        """
        return next(self.lazy_batches().split(len(self)))

    def lazy_batches(self) -> LazyBatches:
        """The images for a split that would be too large as floats.

        Returns:
            What `floats()` gives, but made batch by batch.
        """
        return LazyBatches(self)


@dataclass(frozen=True)
class LazyBatches:
    """Stands for the tensor float32 (N,3,size,size) in evaluation, and is made batch by batch."""

    images: Images
    """The images that are shown"""

    @property
    def shape(self) -> torch.Size:
        """(N,3,size,size)."""
        return torch.Size((len(self.images), 3, self.images.row.size, self.images.row.size))

    @property
    def device(self) -> torch.device:
        """Where the batches are."""
        return self.images.device

    def split(self, size: int) -> Iterator[Tensor]:
        """The images in order, as `torch.Tensor.split` would give them.

        Args:
            size: images per batch, 1 or more; the last batch may be smaller.

        Returns:
            An iterator over float32 (B,3,size,size) in [0,1], each made when it is asked for.
        """
        indices = torch.arange(len(self.images)).split(size)
        return (evaluation_view(x, row) for x, _, row in self.images.batches(indices))


def load_images(name: str | DataSet, split: str, device: torch.device | str = "cpu") -> Images:
    """A whole split, for batches on a device.

    Image files are streamed where each epoch crops them anew, and where they would take more than
    `MAX_RESIDENT_BYTES`; all else lies on the device.

    Args:
        name: a data set of the catalogue, or a row of a study.
        split: "train" or "test".
        device: where batches are wanted.

    Returns:
        The images, in file order.

    Raises:
        ValueError: one line, for whatever is missing or wrong.
    """
    row = dataset_row(name)
    if row.loader in LISTED:
        files = listing(row, split)
        is_cropped_anew = split == "train" and "resized_crop" in row.augment
        if is_cropped_anew or len(files) * 3 * side_before_crop(row) ** 2 > MAX_RESIDENT_BYTES:
            labels = torch.from_numpy(files.labels).to(device)
            return Images(files, labels, row, groups(row, split))
    x, y = load(row, split)
    return Images(x.to(device), y.to(device), row, groups(row, split))


def training_batches(
    images: Images,
    batch_size: int,
    order_rng: torch.Generator,
    augment_rng: torch.Generator,
) -> Iterator[tuple[Tensor, Tensor]]:
    """One epoch of training batches, in a random order and augmented as the data set's row says.

    Generators live on the CPU, so that an epoch does not depend on the device. The last batch may
    be smaller; a single last image joins the batch before it (BatchNorm cannot train on one value).

    Args:
        images: the training images.
        batch_size: images per batch, 1 or more.
        order_rng: draws the order.
        augment_rng: draws the augmentation.

    Yields:
        x, float32 (B,3,size,size) in [0,1], and y, int64 (B,).
    """
    order = torch.randperm(len(images), generator=order_rng)
    indices = list(order.split(batch_size))
    if len(indices) > 1 and len(indices[-1]) == 1:
        indices[-2:] = [torch.cat(indices[-2:])]
    for x, y, row in images.batches(indices, augment_rng):
        yield augment(x, row, augment_rng), y
