"""Pictures and sounds as files: what the model gets is what transformers' processors make of them.

The program `media` (media.rs beside this file) writes the tensors. Run with -s to see the figures of docs/data.md.
"""

import gzip
import importlib.util
import itertools
import json
import os
import subprocess
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from conftest import GRAPHS, ROOT
from PIL import Image, ImageFile
from safetensors.numpy import load_file
from sklearn.datasets import load_digits
from transformers import AutoFeatureExtractor, AutoImageProcessor, AutoModel, AutoModelForAudioClassification
from transformers.image_utils import load_image

FIXTURES = ROOT / "fixtures/media"
MEDIA = Path(os.environ["EVA_ONNX"]).parent / "examples/media"
SOURCES = [(1, 1), (3, 2), (17, 23), (64, 48), (48, 64), (100, 7), (5, 90), (33, 200), (256, 256), (301, 199), (640, 480)]
TARGETS = [(1, 1), (8, 8), (7, 13), (32, 32), (50, 20), (20, 50), (224, 224), (3, 300), (300, 3)]
UNCHANGED = {"image_processor_type": "ViTImageProcessor", "do_rescale": False, "do_normalize": False}

spec = importlib.util.spec_from_file_location("make_media", FIXTURES / "make.py")
make = importlib.util.module_from_spec(spec)
spec.loader.exec_module(make)

# Pillow gives up on pictures of noise that need more than its first guess.
ImageFile.MAXBLOCK = 1 << 22


def ours(settings, files, folder):
    """What eva-onnx makes of files with these settings."""
    (folder / "preprocessor_config.json").write_text(json.dumps(settings))
    out = folder / "made.safetensors"
    subprocess.run([MEDIA, folder, out, *files], check=True)
    made = load_file(out)
    return [made[str(at)] for at in range(len(files))]


def theirs(settings, file, folder, **options):
    processor = AutoImageProcessor.from_pretrained(save(settings, folder), **options)
    # Slow ones guess where the channels are, wrongly for pictures of one or three rows.
    channels = {} if type(processor).__name__.endswith("Fast") else {"input_data_format": "channels_last"}
    return processor(load_image(str(file)), return_tensors="pt", **channels).pixel_values[0].numpy()


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """Noise, edges and gradients of many sizes."""
    folder, random, files = tmp_path_factory.mktemp("pictures"), np.random.default_rng(3), []
    for width, height in SOURCES:
        rows, columns = np.mgrid[0:height, 0:width]
        kinds = {
            "noise": random.integers(0, 256, (height, width, 3)),
            "edges": 255 * (((rows // 3) + (columns // 5)) % 2)[..., None].repeat(3, axis=-1),
            "gradient": np.stack([rows * 255 // height, columns * 255 // width, (rows + columns) % 256], axis=-1),
        }
        for kind, samples in kinds.items():
            files.append(folder / f"{kind}-{width}x{height}.png")
            Image.fromarray(samples.astype(np.uint8)).save(files[-1])
    return files


def test_the_golden_values_are_those_of_transformers(tmp_path):
    assert make.golden(tmp_path) == json.loads((FIXTURES / "golden.json").read_text())


def test_sizes_are_those_of_pillow_to_the_bit(pictures, tmp_path):
    compared = 0
    for width, height in TARGETS:
        for resample in range(6):
            settings = UNCHANGED | {"resample": resample, "size": {"width": width, "height": height}}
            for file, made in zip(pictures, ours(settings, pictures, tmp_path)):
                expected = np.asarray(Image.open(file).resize((width, height), resample))
                assert np.array_equal(made, expected.transpose(2, 0, 1)), (file.name, width, height, resample)
                compared += 1
    print(f"\n{compared} resized pictures: all samples equal Pillow's")


def test_slow_processors_are_equal_to_the_bit(pictures, tmp_path):
    files = [file for file in pictures if file.name.startswith("noise")]
    compared = 0
    for name, settings in [*make.SETTINGS.items(), *defaults()]:
        for file, made in zip(files, ours(settings, files, tmp_path)):
            expected = theirs(settings, file, tmp_path, use_fast=False)
            assert made.shape == expected.shape and np.array_equal(made, expected.astype(np.float32)), (name, file.name)
            compared += 1
    print(f"\n{compared} processed pictures, {len(make.SETTINGS) + len(list(defaults()))} settings: all values equal")


def defaults():
    """Every class with its default settings."""
    classes = {settings.get("image_processor_type") for settings in make.SETTINGS.values()} - {None}
    return [(name, {"image_processor_type": name}) for name in sorted(classes)]


def test_fast_processors_are_equal_to_the_bit(pictures, tmp_path):
    """A class that ends in `Fast` means torchvision. How far the two are apart is printed, in grey levels."""
    files = [file for file in pictures if file.name.startswith("noise")]
    compared, apart = 0, 0.0
    for name, settings in [*make.SETTINGS.items(), *defaults()]:
        if settings.get("crop_pct", 1) is None:
            continue  # The fast processor divides by it.
        kind = settings.get("image_processor_type") or settings["feature_extractor_type"].replace("FeatureExtractor", "ImageProcessor")
        settings = {key: value for key, value in settings.items() if not key.endswith("_type")}
        slow = ours(settings | {"image_processor_type": kind}, files, tmp_path)
        fast = ours(settings | {"image_processor_type": kind + "Fast"}, files, tmp_path)
        for file, made, other in zip(files, fast, slow):
            expected = theirs(settings | {"image_processor_type": kind + "Fast"}, file, tmp_path)
            assert made.shape == expected.shape and np.array_equal(made, expected.astype(np.float32)), (name, file.name)
            compared += 1
            if kind == "ViTImageProcessor" and "resample" not in settings and "image_mean" not in settings:
                apart = max(apart, np.abs(made - other).max() * 127.5)
    print(f"\n{compared} pictures of fast processors: all values equal; slow and fast ViT are up to {apart:.2f} grey levels apart")


def save(settings, folder):
    (folder / "preprocessor_config.json").write_text(json.dumps(settings))
    return folder


def photographs(folder):
    """JPEG pictures in the ways that cameras and programs write them, and their kinds."""
    random, files = np.random.default_rng(4), []

    def save(kind, samples, **options):
        files.append((kind, folder / f"{len(files)}.jpg"))
        Image.fromarray(samples).save(files[-1][1], **options)

    sizes = [(64, 48), (101, 77), (320, 240), (17, 250), *[(width, height) for width in range(1, 8) for height in (1, 2, 3, 9)]]
    for at, (width, height) in enumerate(sizes):
        rows, columns = np.mgrid[0:height, 0:width]
        waves = [128 + 90 * np.sin(rows / (7 + k) + at) * np.cos(columns / (11 - 2 * k)) for k in range(3)]
        smooth = np.clip(np.stack(waves, axis=-1) + random.normal(0, 6, (height, width, 3)), 0, 255).astype(np.uint8)
        noise = random.integers(0, 256, (height, width, 3), dtype=np.uint8)
        for samples in (smooth, noise):
            for quality in (5, 30, 75, 95, 100):
                for subsampling in ("4:4:4", "4:2:2", "4:2:0"):
                    for progressive in (False, True):
                        save(subsampling, samples, quality=quality, subsampling=subsampling, progressive=progressive)
                save("grey", samples[..., 0], quality=quality)
            save("restarts", samples, restart_marker_blocks=1)
            save("restarts", samples, restart_marker_rows=1, progressive=True)
            save("optimised", samples, optimize=True)
            save("RGB", samples, keep_rgb=True)
    # The units of other sizes, read as those of layouts that Pillow does not write.
    for (kind, factor), (size, of) in itertools.product(
        [("4:2:2", 0x12), ("4:2:0", 0x41), ("4:2:0", 0x14)], [((96, 96), (96, 96)), ((93, 85), (96, 96)), ((3, 7), (16, 16))]
    ):
        file = folder / f"{len(files)}.jpg"
        samples = random.integers(0, 256, (of[1], of[0], 3), dtype=np.uint8)
        Image.fromarray(samples).resize((of[0] // 4, of[1] // 4)).resize(of).save(file, subsampling=kind)
        file.write_bytes(relabelled(file.read_bytes(), factor, size))
        files.append((f"factors {factor:#x}", file))
    return files


def relabelled(data, factor, size):
    """A JPEG file whose header gives the luma these factors, and the picture this size."""
    at = data.index(b"\xff\xc0")
    header = bytearray(data[at : at + 19])
    header[5:9] = size[1].to_bytes(2, "big") + size[0].to_bytes(2, "big")
    header[11] = factor
    return data[:at] + bytes(header) + data[at + 19 :]


def test_jpeg_is_equal_to_the_bit(tmp_path):
    files = photographs(tmp_path)
    kinds = {}
    for (kind, file), made in zip(files, ours(UNCHANGED | {"do_resize": False}, [file for _, file in files], tmp_path)):
        expected = np.asarray(Image.open(file).convert("RGB")).transpose(2, 0, 1)
        assert np.array_equal(made, expected), (kind, file.name, np.abs(made - expected).max())
        kinds[kind] = kinds.get(kind, 0) + 1
    print(f"\n{sum(kinds.values())} JPEG pictures: all samples equal Pillow's; {kinds}")


def chirps(folder):
    """Sounds of several lengths."""
    files, random = [], np.random.default_rng(5)
    for at, seconds in enumerate([0.05, 0.7, 1.0, 3.3, 31.0]):
        time = np.arange(int(seconds * make.RATE)) / make.RATE
        sound = 0.4 * np.sin(2 * np.pi * (100 + 500 * at + 900 * (time % 1.3)) * time) + 0.01 * random.standard_normal(len(time))
        files.append(folder / f"{at}.{'wav' if at % 2 else 'flac'}")
        soundfile.write(files[-1], sound, make.RATE, subtype="PCM_16")
    return files


@pytest.mark.parametrize("settings", [
    {"feature_extractor_type": "WhisperFeatureExtractor"},
    {"feature_extractor_type": "WhisperFeatureExtractor", "feature_size": 128},
    {"feature_extractor_type": "Wav2Vec2FeatureExtractor"},
    {"feature_extractor_type": "Wav2Vec2FeatureExtractor", "do_normalize": False},
])
def test_sounds_are_those_of_transformers(settings, tmp_path):
    """PyTorch computes the spectrogram in 32 bits, with errors of its transform relative to the loudest frequency."""
    files = chirps(tmp_path)
    made = ours(settings, files, tmp_path)
    extractor = AutoFeatureExtractor.from_pretrained(save(settings, tmp_path))
    worst = 0
    for file, ours_of_file in zip(files, made):
        expected = extractor(make.mono(file), sampling_rate=make.RATE, return_tensors="np")
        (expected,) = expected.get("input_features", expected.get("input_values"))
        assert ours_of_file.shape == expected.shape
        worst = max(worst, float(np.abs(ours_of_file - expected).max()))
    print(f"\n{settings}: largest difference {worst:.1e}")
    assert worst <= 1e-3


def captured(model, export, settings, data, batches, folder):
    """The share of the best possible variance that each A holds, with exact components in 64 bits of what the layers of
    the PyTorch model read."""
    run = folder / "run"
    run.mkdir()
    graph = run / "model.onnx"
    graph.write_bytes(gzip.decompress((GRAPHS / "exports" / export / "model.onnx.gz").read_bytes()))
    (run / "config.json").write_bytes((GRAPHS / "exports" / export / "config.json").read_bytes())
    save(settings, run)
    arguments = [os.environ["EVA_ONNX"], "init", graph, "--data", data, "--out", folder / "adapter", "--tau", "1", "--rank", "4"]
    subprocess.run([*arguments, "--device", "cpu", "--quiet"], check=True)
    report = json.loads((folder / "adapter/eva.json").read_text())
    tensors = load_file(folder / "adapter/adapter_model.safetensors")
    seen = {}
    for layer in report["layers"]:
        keep = lambda _, inputs, name=layer["module"]: seen.setdefault(name, []).append(inputs[0].reshape(-1, inputs[0].shape[-1]))
        model.get_submodule(layer["module"]).register_forward_pre_hook(keep)
    with torch.no_grad():
        for batch in batches:
            model(**batch)
    shares = {}
    for layer in report["layers"]:
        if layer["rank"]:
            covariance = np.cov(torch.cat(seen[layer["module"]]).numpy(), rowvar=False)
            a = tensors[f"base_model.model.{layer['module']}.lora_A.weight"].astype(np.float64)
            shares[layer["module"]] = np.trace(a @ covariance @ a.T) / np.linalg.eigvalsh(covariance)[-layer["rank"] :].sum()
    assert len(shares) > 1
    return shares


def test_a_vision_transformer_learns_from_pictures(tmp_path):
    """Handwritten digits as PNG in folders of their classes."""
    digits = load_digits()
    for at in range(200):
        folder = tmp_path / f"digits/{digits.target[at]}"
        folder.mkdir(parents=True, exist_ok=True)
        picture = Image.fromarray((digits.images[at] * 15.9).astype(np.uint8))
        picture.resize((20 + at % 7, 20), Image.Resampling.BICUBIC).save(folder / f"{at}.png")
    settings = {"image_processor_type": "ViTImageProcessor", "size": {"height": 8, "width": 8}}
    model = AutoModel.from_pretrained(GRAPHS / "exports/vit/checkpoint").double().eval()
    files = sorted((tmp_path / "digits").rglob("*.png"))
    batches = [{"pixel_values": torch.tensor(theirs(settings, file, tmp_path)[None]).double()} for file in files]
    shares = captured(model, "vit/dynamo", settings, tmp_path / "digits", batches, tmp_path)
    print(f"\nViT: {len(files)} pictures, {len(shares)} modules, captured variance at least {min(shares.values()):.6f}")
    assert min(shares.values()) >= 0.999


def test_whisper_learns_from_sounds(tmp_path):
    """Chirps of at most a second as WAV."""
    (tmp_path / "sounds").mkdir()
    random, files, lines = np.random.default_rng(6), [], []
    for at in range(24):
        time = np.arange(int((0.4 + 0.6 * random.random()) * make.RATE)) / make.RATE
        sound = np.sin(2 * np.pi * (random.uniform(80, 900) + random.uniform(0, 2500) * time) * time) * np.exp(-3 * time)
        files.append(tmp_path / f"sounds/{at}.wav")
        soundfile.write(files[-1], 0.6 * sound + 0.003 * random.standard_normal(len(time)), make.RATE, subtype="PCM_16")
        lines.append(json.dumps({"audio": f"sounds/{at}.wav"}))
    (tmp_path / "rows.jsonl").write_text("\n".join(lines) + "\n")
    settings = {"feature_extractor_type": "WhisperFeatureExtractor", "chunk_length": 1, "feature_size": 8}
    extractor = AutoFeatureExtractor.from_pretrained(save(settings, tmp_path))
    model = AutoModelForAudioClassification.from_pretrained(GRAPHS / "exports/whisper/checkpoint").double().eval()
    features = [extractor(make.mono(file), sampling_rate=make.RATE, return_tensors="pt").input_features for file in files]
    batches = [{"input_features": feature.double()} for feature in features]
    shares = captured(model, "whisper/dynamo", settings, tmp_path / "rows.jsonl", batches, tmp_path)
    print(f"\nWhisper: {len(files)} sounds, {len(shares)} modules, captured variance at least {min(shares.values()):.6f}")
    assert min(shares.values()) >= 0.999
