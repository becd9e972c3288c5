use super::inputs::shared_positions;
use super::rules::Extent;
use super::*;
use crate::calib::Size;
use crate::calib::{NamedTensor, Tokens};
use crate::dtype::DType;
use crate::hint::Hint;
use crate::onnx::Dim;
use crate::tensor::Tensor;
use ndarray::{Array2, array};

fn input(name: &str, element: &str, dims: &[&str]) -> Input {
    let dim = |d: &&str| d.parse().map_or_else(|_| Dim::Symbol((*d).to_owned()), Dim::Fixed);
    Input { name: name.into(), dtype: element.parse().expect("a type"), shape: Some(dims.iter().map(dim).collect()) }
}

fn tokens() -> Input {
    input("input_ids", "i64", &["batch", "sequence"])
}

#[track_caller]
fn check(other: Input, cache: CacheShape, want: Feed) {
    let plan = Feeds::plan(&[tokens(), other], cache).expect("a plan");
    assert_eq!(plan.inputs.feeds[1].2, want);
}

#[test]
fn an_empty_cache_has_no_positions() {
    let past = |dims: &[&str]| input("past_key_values.0.key", "f32", dims);
    let want = Feed::Zeros(vec![Extent::Batch, Extent::Fixed(2), Extent::Fixed(0), Extent::Fixed(16)]);
    check(past(&["batch_size", "2", "past_sequence_length", "16"]), CacheShape::default(), want.clone());
    let cache = CacheShape { heads: Some(2), head_dim: Some(16) };
    check(past(&["batch_size", "2", "past", "kv_cache_dim"]), cache, want);
}

#[test]
fn scalars_and_switches_are_zero() {
    check(input("onnx::Gather_2", "i64", &[]), CacheShape::default(), Feed::Zeros(vec![]));
    check(input("use_cache_branch", "bool", &["1"]), CacheShape::default(), Feed::Zeros(vec![Extent::Fixed(1)]));
}

#[test]
fn recurrent_layers_start_with_zeros() {
    let want = Feed::Zeros(vec![Extent::Fixed(2), Extent::Batch, Extent::Fixed(8)]);
    check(input("h0", "f32", &["2", "batch", "8"]), CacheShape::default(), want.clone());
    check(input("state", "f32", &["2", "batch", "8"]), CacheShape::default(), want);
    let observed = Feed::Tensor(vec![Size::Fixed(8)]);
    check(input("state", "f32", &["batch", "8"]), CacheShape::default(), observed);
}

#[test]
fn positions_may_lack_the_batch_axis() {
    check(input("cache_position", "i64", &["sequence"]), CacheShape::default(), Feed::CachePositions);
    check(input("position_ids", "i64", &["sequence"]), CacheShape::default(), Feed::SharedPositions);
}

#[test]
fn one_list_of_positions_serves_rows_that_agree() {
    let shared = |attended: Array2<bool>| {
        let length = attended.ncols();
        shared_positions("position_ids", &Tokens::new(Array2::zeros(attended.dim()), attended), length)
    };
    let padded = array![[true, true, false], [true, true, true], [false, false, false]];
    assert_eq!(shared(padded).expect("positions"), [0, 1, 2]);
    let with_holes = array![[false, true, false, true, false], [false, true, false, true, true]];
    assert_eq!(shared(with_holes).expect("positions"), [0, 0, 1, 1, 2]);
    let error = shared(array![[true, false, true], [true, true, true]]).expect_err("two lists");
    assert!(error.hint().is_some_and(|hint| hint.contains("--batch-size 1")), "{error}");
}

#[test]
fn an_unknown_input_is_named_with_its_shape() {
    let error = Feeds::plan(&[tokens(), input("name", "string", &["batch", "4"])], CacheShape::default());
    let text = error.expect_err("no rule").to_string();
    assert!(text.contains("`name` (string [batch, 4])"), "{text}");
}

#[test]
fn rows_hold_images_and_sounds_beside_tokens() {
    let pixels = input("pixel_values", "f32", &["batch", "3", "h", "w"]);
    let wanted = [TensorInput {
        name: "pixel_values".to_owned(),
        dtype: DType::F32,
        shape: vec![Size::Fixed(3), Size::Any, Size::Any],
    }];
    let both = Feeds::plan(&[tokens(), pixels.clone()], CacheShape::default()).expect("a plan");
    assert_eq!((both.tensors(), both.lengths()), (wanted.to_vec(), Lengths::Tokens));
    let states = input("encoder_hidden_states", "f32", &["batch", "length", "64"]);
    let decoder = || Feeds::plan(&[tokens(), states.clone()], CacheShape::default()).expect("a plan");
    let of_images = decoder().beside(&[pixels]).expect("an encoder");
    assert_eq!((of_images.tensors(), of_images.needs_pairs()), (wanted.to_vec(), false));
    let of_tokens = decoder().beside(&[tokens()]).expect("an encoder");
    assert_eq!((of_tokens.tensors(), of_tokens.needs_pairs()), (vec![], true));
}

#[test]
fn a_model_without_tokens_is_refused() {
    let error = Feeds::plan(&[input("x", "f32", &["4"])], CacheShape::default()).expect_err("no tokens");
    assert!(error.to_string().contains("`x` [4]"), "{error}");
}

#[test]
fn encoders_and_decoders_read_their_own_tokens() {
    let ids = |name: &str| input(name, "i64", &["batch", "length"]);
    let states = input("encoder_hidden_states", "f32", &["batch", "length", "64"]);
    let sources = |inputs: &[Input]| {
        let plan = Feeds::plan(inputs, CacheShape::default()).expect("a plan");
        assert!(plan.needs_pairs());
        (plan.needs_encoder(), plan.inputs.feeds.into_iter().map(|(.., feed)| feed).collect::<Vec<_>>())
    };
    assert_eq!(
        sources(&[ids("encoder_attention_mask"), ids("input_ids"), states]),
        (true, vec![Feed::EncoderMask, Feed::InputIds, Feed::EncoderStates])
    );
    assert_eq!(
        sources(&[ids("input_ids"), ids("attention_mask"), ids("decoder_input_ids")]),
        (false, vec![Feed::EncoderIds, Feed::EncoderMask, Feed::InputIds])
    );
    let cache = input("past_key_values.0.encoder.key", "f32", &["batch", "4", "length", "16"]);
    assert!(matches!(Feeds::plan(&[tokens(), cache], CacheShape::default()), Err(Error::NeedsCache { .. })));
}

#[test]
fn static_dimensions_fix_the_batch() {
    let plan = Feeds::plan(&[input("input_ids", "i64", &["1", "128"])], CacheShape::default()).expect("a plan");
    assert_eq!((plan.shape().batch, plan.shape().length), (Some(1), Some(128)));
}

#[test]
fn images_are_fields_of_the_rows() {
    let plan = Feeds::plan(&[input("pixel_values", "f32", &["batch", "3", "224", "width"])], CacheShape::default());
    let shape = vec![Size::Fixed(3), Size::Fixed(224), Size::Any];
    let want = TensorInput { name: "pixel_values".to_owned(), dtype: DType::F32, shape };
    assert_eq!(plan.expect("a plan").tensors(), [want]);
}

#[test]
fn integer_tensors_are_fields_unless_they_belong_to_tokens() {
    let crops = input("crops", "i64", &["batch", "4"]);
    let feeds = Feeds::plan(&[tokens(), crops], CacheShape::default()).expect("a plan");
    let shape = vec![Size::Fixed(4)];
    assert_eq!(feeds.tensors(), [TensorInput { name: "crops".to_owned(), dtype: DType::I64, shape }]);
}

/// The sizes of the input `other` beside `first`, and what gives rows their lengths.
#[track_caller]
fn check_sizes(first: Input, other: Input, sizes: &[Size], lengths: Lengths) {
    let feeds = Feeds::plan(&[first, other.clone()], CacheShape::default()).expect("a plan");
    let found = feeds.tensors().into_iter().find(|tensor| tensor.name == other.name).expect("a tensor");
    assert_eq!((&found.shape[..], feeds.lengths()), (sizes, lengths));
}

#[test]
fn axes_of_tokens_are_known_by_their_names() {
    let tokenized = |name, dims: &[&str], sizes: &[Size]| {
        check_sizes(tokens(), input(name, "i64", dims), sizes, Lengths::Tokens);
    };
    let per_token = Size::Tokens;
    tokenized("bbox", &["batch", "sequence", "4"], &[per_token, Size::Fixed(4)]);
    tokenized("spatial_pos", &["batch", "sequence", "sequence"], &[per_token, per_token]);
    tokenized("global_attention_mask", &["batch", "sequence"], &[per_token]);
    tokenized("x", &["batch", "other", "width"], &[Size::TokensOrAny, Size::Any]);
    tokenized("x", &["batch", "x_dynamic_axes_1", "x_dynamic_axes_2"], &[Size::TokensOrAny, Size::TokensOrAny]);
    let fixed = input("input_ids", "i64", &["1", "4"]);
    check_sizes(fixed.clone(), input("bbox", "i64", &["1", "4", "4"]), &[per_token, per_token], Lengths::Tokens);
    check_sizes(fixed, input("x", "f32", &["1", "3", "4"]), &[Size::Fixed(3), Size::Fixed(4)], Lengths::Tokens);
}

#[test]
fn tensors_beside_a_mask_give_the_lengths() {
    let mask = |dims: &[&str]| input("attention_mask", "i64", dims);
    let states = input("states", "f32", &["b", "s", "11"]);
    check_sizes(mask(&["b", "s"]), states.clone(), &[Size::Tokens, Size::Fixed(11)], Lengths::Tensors);
    let embeddings = input("inputs_embeds", "f32", &["b", "s", "24"]);
    check_sizes(mask(&["b", "total"]), embeddings, &[Size::Tokens, Size::Fixed(24)], Lengths::Tensors);
    // A mask that goes with no other tensor is one itself.
    let pixels = input("pixel_values", "f32", &["b", "3", "h", "w"]);
    check_sizes(mask(&["b", "s"]), pixels, &[Size::Fixed(3), Size::Any, Size::Any], Lengths::Nothing);
    check_sizes(input("x", "f32", &["b", "4"]), states, &[Size::Any, Size::Fixed(11)], Lengths::Nothing);
    check_sizes(input("x", "f32", &["b", "4"]), input("timestep", "i64", &["b"]), &[], Lengths::Nothing);
}

#[test]
fn positions_may_be_of_several_axes() {
    check(input("position_ids", "i64", &["3", "batch", "sequence"]), CacheShape::default(), Feed::Positions(Some(3)));
}

#[test]
fn a_tensor_must_have_the_type_and_shape_of_its_input() {
    let feeds = Feeds::plan(&[input("x", "f32", &["batch", "2"])], CacheShape::default()).expect("a plan");
    let tokens = Tokens::new(array![[0]], array![[true]]);
    let with = |tensor| Batch {
        tensors: vec![NamedTensor { name: "x".to_owned(), tensor, token_axes: vec![] }],
        ..Batch::of_tokens(tokens.clone())
    };
    let error = |batch: &Batch| feeds.bind(batch).map(|_| ()).expect_err("no fit").to_string();
    let wide = Tensor::zeros(DType::F32, &[1, 3]).expect("zeros");
    let expected = "the input `x` takes f32 [batch, 2], and the calibration data has f32 [1, 3]";
    assert_eq!(error(&with(wide)), expected);
    assert!(error(&with(Tensor::zeros(DType::I64, &[1, 2]).expect("zeros"))).contains("has i64 [1, 2]"));
    assert!(error(&Batch::of_tokens(tokens.clone())).contains("nothing for the input `x`"));
}
