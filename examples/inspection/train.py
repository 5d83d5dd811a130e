"""Train the bundled detectors on seeded scenes, from scratch, on a CPU, and export them to ONNX.

Usage: python examples/inspection/train.py light|full [--work FOLDER]     (needs the `export` extra)

Not part of any test: it takes about half an hour (light) or an hour (full) on two cores.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import cv2
import yaml

from framelane_inspection.scenes import CLASS_NAMES, Scene, draw_scene

HERE = Path(__file__).parent
LAYOUT = {"light": HERE / "yolov8-light.yaml", "full": "yolov8n.yaml"}
# Epochs over the same pictures.
NUM_EPOCHS = {"light": 6, "full": 4}
NUM_TRAIN_SCENES, NUM_VAL_SCENES = 5000, 250
# Training pictures are small windows of the line: the network is convolutional and the pixels keep their size.
WINDOW_HW = (320, 320)
# Training also shows larger defects. With small ones alone nothing was learnt in two epochs: ultralytics weighs a
# target by the overlap of the predicted box, near zero for boxes of one stride at first; larger ones bridge that.
TRAINED_DEFECTS_PX = (6.0, 36.0)
# Seeds of training, validation and later measurement never meet.
FIRST_TRAIN_SEED, FIRST_VAL_SEED = 1_000_000, 2_000_000


def main() -> None:
    """Draw the data set once, train the asked model, write `framelane_inspection/models/inspection-<model>.onnx`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", choices=sorted(LAYOUT))
    parser.add_argument("--work", type=Path, default=Path("out/train"))
    options = parser.parse_args()
    data_yaml = write_dataset(options.work)
    weights = train(options.model, data_yaml, options.work)
    from engines.export import export_to_onnx

    export_to_onnx(weights, HERE / f"framelane_inspection/models/inspection-{options.model}.onnx")


def write_dataset(work: Path) -> Path:
    """Write pictures and labels in the YOLO text format below `work` unless they are there; return the data YAML."""
    data_yaml = work / "data.yaml"
    if data_yaml.exists():
        return data_yaml
    splits = {"train": (FIRST_TRAIN_SEED, NUM_TRAIN_SCENES), "val": (FIRST_VAL_SEED, NUM_VAL_SCENES)}
    for split, (first_seed, num_scenes) in splits.items():
        images, labels = work / "images" / split, work / "labels" / split
        images.mkdir(parents=True, exist_ok=True)
        labels.mkdir(parents=True, exist_ok=True)
        for seed in range(first_seed, first_seed + num_scenes):
            scene = draw_scene(WINDOW_HW, seed, TRAINED_DEFECTS_PX)
            cv2.imwrite(str(images / f"{seed}.jpg"), scene.image_hwc, [cv2.IMWRITE_JPEG_QUALITY, 96])
            (labels / f"{seed}.txt").write_text(label_text(scene))
    names = dict(enumerate(CLASS_NAMES))
    layout = {"path": str(work.resolve()), "train": "images/train", "val": "images/val", "names": names}
    data_yaml.write_text(yaml.safe_dump(layout))
    return data_yaml


def label_text(scene: Scene) -> str:
    """One line an object: class, centre and size as fractions of the picture."""
    height, width = scene.image_hwc.shape[:2]
    boxes = scene.boxes_xyxy
    centres = (boxes[:, :2] + boxes[:, 2:]) / 2 / (width, height)
    sizes = (boxes[:, 2:] - boxes[:, :2]) / (width, height)
    rows = zip(scene.class_ids, *centres.T, *sizes.T, strict=True)
    return "".join(f"{int(c)} {x:.6f} {y:.6f} {w:.6f} {h:.6f}\n" for c, x, y, w, h in rows)


def train(model: str, data_yaml: Path, work: Path) -> Path:
    """Train from random weights with a fixed seed; return the `.pt` of the last epoch's average."""
    from ultralytics import YOLO

    detector = YOLO(str(LAYOUT[model]), task="detect")
    detector.train(
        data=str(data_yaml), imgsz=WINDOW_HW[0], epochs=NUM_EPOCHS[model], batch=16, nbs=16, seed=1, device="cpu",
        optimizer="AdamW", lr0=0.002, lrf=0.02, cos_lr=True, warmup_epochs=0.5, weight_decay=0.01,
        mosaic=0.0, scale=0.0, translate=0.05, fliplr=0.5, flipud=0.5, hsv_h=0.01, hsv_s=0.3, hsv_v=0.3, erasing=0.0,
        project=str(work.resolve()), name=model, exist_ok=True, cache="ram", workers=1, plots=False, pretrained=False,
    )  # fmt: skip
    return work / model / "weights" / "last.pt"


if __name__ == "__main__":
    main()
