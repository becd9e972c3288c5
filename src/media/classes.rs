//! The image processors of transformers that are known, with their defaults (`models/*/image_processing_*.py`, 4.57).

use super::filter::Filter;

/// An image processor of transformers: it resizes, crops, rescales and normalizes, in this order.
pub(super) struct Class {
    /// Its name without `ImageProcessor`.
    pub(super) name: &'static str,
    /// Types of models that have it (`models/auto/image_processing_auto.py`).
    pub(super) models: &'static [&'static str],
    /// The size by default.
    pub(super) size: DefaultSize,
    /// The filter by default.
    pub(super) filter: Filter,
    /// Side of the part in the middle that is cut out; `None` for those that cannot.
    pub(super) crop: Option<usize>,
    /// Whether it is cut out by default.
    pub(super) crops: bool,
    /// Mean and deviation by default; `None` for those that do not normalize.
    pub(super) normal: Option<Normal>,
    /// What is special about the way it resizes.
    pub(super) rule: Rule,
    /// Whether it exchanges red and blue, unless it is told not to.
    pub(super) flips: bool,
}

/// A size by default, and what a plain number means.
#[derive(Clone, Copy)]
pub(super) enum DefaultSize {
    /// Both sides.
    Square(usize),
    /// The shorter side; the other keeps the proportion.
    Shortest(usize),
}

/// What is special about a way to resize.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Rule {
    /// Nothing.
    Plain,
    /// Below 384, the shorter side gets the size divided by `crop_pct`, and the middle is cut out; from there on, both sides
    /// get the size.
    CropPct,
    /// The shorter side gets the size times 256/224.
    Widened,
}

/// A mean and a deviation for each channel.
#[derive(Clone, Copy)]
pub(super) struct Normal {
    pub(super) mean: [f64; 3],
    pub(super) std: [f64; 3],
}

const STANDARD: Option<Normal> = Some(Normal { mean: [0.5; 3], std: [0.5; 3] });
const IMAGENET: Option<Normal> = Some(Normal { mean: [0.485, 0.456, 0.406], std: [0.229, 0.224, 0.225] });
const OPENAI: Option<Normal> =
    Some(Normal { mean: [0.48145466, 0.4578275, 0.40821073], std: [0.26862954, 0.26130258, 0.27577711] });

/// A class that resizes both sides to 224 and normalizes to [-1, 1].
const PLAIN: Class = Class {
    name: "ViT",
    models: &[
        "vit",
        "vit_mae",
        "vit_msn",
        "swin",
        "swinv2",
        "clipseg",
        "dinat",
        "ijepa",
        "mgp-str",
        "nat",
        "swiftformer",
    ],
    size: DefaultSize::Square(224),
    filter: Filter::Bilinear,
    crop: None,
    crops: true,
    normal: STANDARD,
    rule: Rule::Plain,
    flips: false,
};

/// BEiT's fast processor, which alone has other defaults than the slow one.
pub(super) static FAST_BEIT: Class =
    Class { name: "Beit", filter: Filter::Bicubic, crop: Some(224), crops: false, ..PLAIN };

/// The classes that are known.
pub(super) static CLASSES: [Class; 14] = [
    Class { ..PLAIN },
    Class {
        name: "CLIP",
        models: &["clip", "aimv2", "aimv2_vision_model", "git", "groupvit", "metaclip_2", "mlcd", "xclip"],
        size: DefaultSize::Shortest(224),
        filter: Filter::Bicubic,
        crop: Some(224),
        normal: OPENAI,
        ..PLAIN
    },
    Class {
        name: "Bit",
        models: &["bit", "dinov2", "focalnet", "hiera"],
        size: DefaultSize::Shortest(224),
        filter: Filter::Bicubic,
        crop: Some(224),
        normal: OPENAI,
        ..PLAIN
    },
    Class {
        name: "DeiT",
        models: &["deit"],
        size: DefaultSize::Square(256),
        filter: Filter::Bicubic,
        crop: Some(224),
        ..PLAIN
    },
    Class {
        name: "Beit",
        models: &["beit", "data2vec-vision"],
        size: DefaultSize::Square(256),
        filter: Filter::Bicubic,
        crop: Some(224),
        ..PLAIN
    },
    Class {
        name: "ConvNext",
        models: &["convnext", "convnextv2", "cvt", "regnet", "resnet", "van"],
        size: DefaultSize::Shortest(384),
        rule: Rule::CropPct,
        ..PLAIN
    },
    Class { name: "Siglip", models: &["siglip"], filter: Filter::Bicubic, ..PLAIN },
    Class {
        name: "Blip",
        models: &["blip", "blip-2", "instructblip"],
        size: DefaultSize::Square(384),
        filter: Filter::Bicubic,
        normal: OPENAI,
        ..PLAIN
    },
    Class {
        name: "MobileNetV1",
        models: &["mobilenet_v1"],
        size: DefaultSize::Shortest(256),
        crop: Some(224),
        ..PLAIN
    },
    Class {
        name: "MobileNetV2",
        models: &["mobilenet_v2"],
        size: DefaultSize::Shortest(256),
        crop: Some(224),
        ..PLAIN
    },
    Class {
        name: "MobileViT",
        models: &["mobilevit", "mobilevitv2"],
        size: DefaultSize::Shortest(224),
        crop: Some(256),
        normal: None,
        flips: true,
        ..PLAIN
    },
    Class {
        name: "Levit",
        models: &["levit"],
        size: DefaultSize::Shortest(224),
        filter: Filter::Bicubic,
        crop: Some(224),
        normal: IMAGENET,
        rule: Rule::Widened,
        ..PLAIN
    },
    Class { name: "Pvt", models: &["pvt", "pvt_v2"], normal: IMAGENET, ..PLAIN },
    Class {
        name: "Segformer",
        models: &["segformer", "upernet"],
        size: DefaultSize::Square(512),
        normal: IMAGENET,
        ..PLAIN
    },
];
