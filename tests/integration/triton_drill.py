"""Run by `test_triton_service.py` in a process of its own, since it starts and stops Ray: prints what it saw as JSON.

python triton_drill.py FOLDER
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from socket import AF_INET, SOCK_STREAM, socket

import cv2
import numpy as np
import tritonclient.http as tritonclient

from framelane_inspection.scenes import draw_scene
from serve_app.config import plan_from
from serve_app.http.image_decode import decode_image
from serve_app.local_service import local_service

CAMERA = "full-1"
PLAN = {
    "models": {"light": "bundled:inspection-light", "full": "bundled:inspection-full"},
    "pools": {"cpu": {"replicas": 1}},
    "buckets": {
        "vga": {"canvases": [[480, 640], [640, 480]], "batches": [1]},
        "full": {"model": "full", "canvases": [[480, 640], [640, 480]], "batches": [1]},
    },
    "cameras": {"full-*": {"model": "full", "degrade": False}},
    "slo_s": {"critical": 30, "normal": 60},
}


def free_port():
    """A port that nobody listens at."""
    with socket(AF_INET, SOCK_STREAM) as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def is_same(answer, results):
    """Whether every output of Triton's client is, to the bit, what ours got for the same frames."""
    counts = answer.as_numpy("num_detections").tolist()
    same = counts == [len(result.detections) for result in results]
    for index, (result, count) in enumerate(zip(results, counts, strict=True)):
        found = result.detections
        same &= np.array_equal(answer.as_numpy("boxes_xyxy")[index, :count], found.boxes_xyxy)
        same &= np.array_equal(answer.as_numpy("scores")[index, :count], found.scores)
        same &= np.array_equal(answer.as_numpy("class_ids")[index, :count], found.class_ids)
        names = [n if isinstance(n, str) else n.decode() for n in answer.as_numpy("class_names")[index, :count]]
        same &= tuple(names) == result.class_names
    return bool(same) and sum(counts) > 0


def raw(images_hwc, *, binary_data=True):
    """Images of one size."""
    batch = np.stack(images_hwc)
    return tritonclient.InferInput("images", batch.shape, "UINT8").set_data_from_numpy(batch, binary_data=binary_data)


def encoded(files):
    """JPEG and PNG files."""
    values = np.array(files, object)
    return tritonclient.InferInput("encoded_images", values.shape, "BYTES").set_data_from_numpy(values)


def ask(client, triton):
    """What both found, by way of asking."""
    scenes = [draw_scene((480, 640), seed=seed).image_hwc for seed in (7, 8, 9)]
    files = [
        cv2.imencode(".jpg", scenes[0])[1].tobytes(),
        cv2.imencode(".png", draw_scene((640, 480), seed=3).image_hwc)[1].tobytes(),
    ]
    ours = [client.detect(scene, camera=CAMERA) for scene in scenes]
    of_files = [client.detect(decode_image(data, "", 10**7), camera=CAMERA) for data in files]
    names = ("num_detections", "boxes_xyxy", "scores", "class_ids", "class_names")
    as_json = [tritonclient.InferRequestedOutput(name, binary_data=False) for name in names]
    camera = {"parameters": {"camera": CAMERA}}
    packed = {"request_compression_algorithm": "gzip", "response_compression_algorithm": "gzip"}
    small = [cv2.resize(scene, (160, 120)) for scene in scenes[:2]]
    of_small = [client.detect(image, camera=CAMERA) for image in small]
    with_models = triton.infer("framelane", [raw(scenes)], **camera)
    return {
        "live": triton.is_server_live(),
        "ready": triton.is_server_ready(),
        "model ready": triton.is_model_ready("framelane"),
        "models": [model["name"] for model in triton.get_model_repository_index()],
        "inputs": [spec["name"] for spec in triton.get_model_metadata("framelane")["inputs"]],
        "max_batch_size": triton.get_model_config("framelane")["max_batch_size"],
        "served by": [name.decode() for name in with_models.as_numpy("models")],
        "binary": is_same(with_models, ours),
        "critical, json out": is_same(
            triton.infer("framelane", [raw(scenes)], outputs=as_json, priority=1, **camera), ours
        ),
        "json in and out": is_same(
            triton.infer("framelane", [raw(small, binary_data=False)], outputs=as_json, **camera), of_small
        ),
        "gzip": is_same(triton.infer("framelane", [raw(scenes)], **packed, **camera), ours),
        "files": is_same(triton.infer("framelane", [encoded(files)], **camera), of_files),
    }


def main():
    """Serve in the folder that is named, and print what was found as one line of JSON."""
    folder, port = Path(sys.argv[1]), free_port()
    plan = plan_from(PLAN | {"http": {"port": port}}, folder)
    with local_service(plan, num_cpus=3, http=True) as client:
        with tritonclient.InferenceServerClient(f"127.0.0.1:{port}") as triton:
            found = ask(client, triton)
        print(json.dumps(found), flush=True)  # noqa: T201 (for the test)


if __name__ == "__main__":
    main()
