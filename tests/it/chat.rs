//! Conversations through chat templates, compared with transformers' own rendering and tokens.

use crate::support::eva::root;
use eva_onnx::Hint;
use eva_onnx::calib::{BatchSize, Calibration, Error, IterSource, LoadOptions, Order, load};
use serde_json::{Map, Value, json};
use std::fs;
use std::path::Path;

/// A folder with the tokenizer and these other files.
fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    fs::copy(root().join("fixtures/chat/tokenizer.json"), dir.path().join("tokenizer.json")).unwrap();
    for (name, content) in files {
        let path = dir.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }
    dir
}

/// A folder whose tokenizer has this template in its configuration.
fn with_template(template: &str) -> tempfile::TempDir {
    let config =
        json!({"bos_token": "<s>", "eos_token": {"content": "</s>"}, "pad_token": null, "chat_template": template});
    folder(&[("tokenizer_config.json", &config.to_string())])
}

fn options(folder: &Path) -> LoadOptions {
    LoadOptions {
        tokenizer: Some(folder.to_owned()),
        max_length: 1 << 16,
        order: Order::Kept,
        batch_size: BatchSize::Rows(1),
        ..LoadOptions::default()
    }
}

fn try_load(options: &LoadOptions, row: &Value) -> Result<Calibration, Error> {
    load(&mut IterSource::new("memory", [row.as_object().unwrap().clone()]), options)
}

/// Token ids, and those that enter the statistics, of one row.
fn tokens(options: &LoadOptions, row: &Value) -> Result<(Vec<i64>, Vec<bool>), Error> {
    let batch = try_load(options, row)?.batch(0);
    Ok((batch.tokens.input("input_ids").unwrap().to_integers().unwrap(), batch.keep.iter().copied().collect()))
}

/// What the tokenizer makes of a text without adding special tokens.
fn ids(text: &str) -> Vec<i64> {
    let tokenizer = tokenizers::Tokenizer::from_file(root().join("fixtures/chat/tokenizer.json")).unwrap();
    tokenizer.encode(text, false).unwrap().get_ids().iter().map(|id| i64::from(*id)).collect()
}

#[test]
fn conversations_are_those_of_transformers_token_for_token() {
    let golden = fs::read_to_string(root().join("fixtures/chat/golden.json")).unwrap();
    let golden: Map<String, Value> = serde_json::from_str(&golden).unwrap();
    let mut compared = 0;
    for (name, template) in &golden {
        let dir = with_template(template["template"].as_str().unwrap());
        for case in template["cases"].as_array().unwrap() {
            let mut row = case["row"].as_object().unwrap().clone();
            if case["open"] == true {
                let messages = row.remove("messages").unwrap();
                row.insert("prompt".to_owned(), messages);
            }
            let mut options = options(dir.path());
            let found = tokens(&options, &Value::Object(row.clone()));
            if case.get("refused").is_some() {
                assert!(matches!(&found, Err(Error::Chat(_))), "{name} {row:?}: {found:?}");
                continue;
            }
            let integers =
                |of: &Value| of.as_array().unwrap().iter().map(|id| id.as_i64().unwrap()).collect::<Vec<_>>();
            let found = found.unwrap_or_else(|error| panic!("{name} {row:?}: {error}")).0;
            if found != integers(&case["ids"]) {
                let shown = |ids: &[i64]| {
                    let tokenizer = tokenizers::Tokenizer::from_file(dir.path().join("tokenizer.json")).unwrap();
                    tokenizer.decode(&ids.iter().map(|id| *id as u32).collect::<Vec<_>>(), false).unwrap()
                };
                panic!("{name} {row:?}\nours:\n{}\ntheirs:\n{}", shown(&found), shown(&integers(&case["ids"])));
            }
            compared += 1;
            let Some(said) = case.get("said").map(integers).filter(|said| said.contains(&1)) else { continue };
            options.completion_only = true;
            let keep = tokens(&options, &Value::Object(row)).unwrap().1;
            assert_eq!(keep, said.iter().map(|said| *said == 1).collect::<Vec<_>>(), "{name} {case}");
        }
    }
    assert!(compared > 75, "{compared}");
}

const PIPES: &str = "{% for m in messages %}<|turn|>{{ m.role }}: {{ m.content }}<|over|>{% endfor %}\
                     {% if add_generation_prompt %}<|turn|>assistant: {% endif %}";

fn row() -> Value {
    json!({"messages": [
        {"role": "user", "content": "How many clips?"},
        {"role": "assistant", "content": "72"},
        {"role": "user", "content": "Why?"},
        {"role": "assistant", "content": "48+24"},
    ]})
}

#[test]
fn the_last_answer_is_the_completion() {
    let dir = with_template(PIPES);
    let options = LoadOptions { completion_only: true, ..options(dir.path()) };
    let kept = |row: &Value| {
        let (ids, keep) = tokens(&options, row).unwrap();
        ids.into_iter().zip(keep).filter(|(_, keep)| *keep).map(|(id, _)| id).collect::<Vec<_>>()
    };
    // A token that reaches into the answer is of the answer.
    assert_eq!(kept(&row()), ids(" 48+24<|over|>"));
    let mut ended = row();
    ended["messages"].as_array_mut().unwrap().push(json!({"role": "user", "content": "Thanks"}));
    assert_eq!(kept(&ended), ids(" 48+24<|over|>"));
    let messages = row()["messages"].as_array().unwrap().clone();
    let split = json!({"prompt": messages[..1], "completion": messages[1..]});
    let expected = " 72<|over|><|turn|>user: Why?<|over|><|turn|>assistant: 48+24<|over|>";
    assert_eq!(kept(&split), ids(expected));
    let asked = json!({"messages": messages[..1]});
    let error = tokens(&options, &asked).unwrap_err().to_string();
    assert!(
        error.ends_with("row 1: cannot tell the assistant's answer from the rest: no message is the assistant's"),
        "{error}"
    );
    // A template that writes earlier turns otherwise when no answer follows.
    let dir = with_template(&format!("{{{{ messages|length }}}}{PIPES}"));
    let options = LoadOptions { completion_only: true, ..self::options(dir.path()) };
    let error = tokens(&options, &row()).unwrap_err();
    assert!(error.to_string().contains("otherwise when no answer follows"), "{error}");
    assert!(error.hint().unwrap().contains("{% generation %}"));
}

#[test]
fn templates_are_found_where_transformers_looks() {
    let expected = ids("<|turn|>user: a<|over|>");
    let row = json!({"conversations": [{"from": "human", "value": "a"}]});
    let config = |template: Value| json!({ "chat_template": template }).to_string();
    let wrong = config("wrong".into());
    let list = config(json!([{"name": "default", "template": PIPES}, {"name": "rag", "template": "r"}]));
    for files in [
        vec![("chat_template.jinja", PIPES)],
        vec![("chat_template.jinja", PIPES), ("tokenizer_config.json", &wrong)],
        vec![("tokenizer_config.json", list.as_str())],
        vec![("additional_chat_templates/default.jinja", PIPES)],
        vec![("chat_template.json", list.as_str())],
    ] {
        let dir = folder(&files);
        assert_eq!(tokens(&options(dir.path()), &row).unwrap().0, expected, "{files:?}");
        let file = LoadOptions { tokenizer: Some(dir.path().join("tokenizer.json")), ..options(dir.path()) };
        assert_eq!(tokens(&file, &row).unwrap().0, expected, "{files:?}");
    }
}

#[test]
fn named_templates() {
    let named =
        json!([{"name": "tool_use", "template": "t"}, {"name": "rag", "template": "r{{ messages[0].content }}"}]);
    let dir = folder(&[("tokenizer_config.json", &json!({ "chat_template": named }).to_string()), ("own.jinja", "o")]);
    let error = tokens(&options(dir.path()), &row()).unwrap_err();
    assert!(error.to_string().contains("none of the chat templates (tool_use, rag) is the default"), "{error}");
    assert!(error.hint().unwrap().contains("--chat-template"));
    let with = |name: String| LoadOptions { chat_template: Some(name), ..options(dir.path()) };
    assert_eq!(tokens(&with("rag".to_owned()), &row()).unwrap().0, ids("rHow many clips?"));
    let file = dir.path().join("own.jinja").display().to_string();
    assert_eq!(tokens(&with(file), &row()).unwrap().0, ids("o"));
    let error = tokens(&with("none".to_owned()), &row()).unwrap_err().to_string();
    assert!(
        error.contains("there is no chat template `none`: neither a file, nor one of that name (tool_use, rag)"),
        "{error}"
    );
    let config =
        json!({"chat_template": [{"name": "default", "template": "d"}, {"name": "tool_use", "template": "t"}]});
    let dir = folder(&[("tokenizer_config.json", &config.to_string())]);
    let mut tools = row();
    tools["tools"] = json!([{"type": "function"}]);
    assert_eq!(tokens(&options(dir.path()), &tools).unwrap().0, ids("t"));
    assert_eq!(tokens(&options(dir.path()), &row()).unwrap().0, ids("d"));
}

#[track_caller]
fn refused(template: &str, row: &Value, message: &str) {
    let dir = with_template(template);
    let error = tokens(&options(dir.path()), row).unwrap_err();
    assert!(error.to_string().contains(message), "{error}");
    assert!(error.hint().is_some());
}

#[test]
fn what_cannot_be_rendered_is_refused() {
    let dir = folder(&[]);
    let error = tokens(&options(dir.path()), &row()).unwrap_err();
    let expected = "`memory` row 1: the row is a conversation, and there is no chat_template.jinja, and no `chat_template` \
                    in tokenizer_config.json, beside the tokenizer in";
    assert!(error.to_string().starts_with(expected), "{error}");
    assert!(error.hint().unwrap().contains("--chat-template"));
    refused("{% if %}", &row(), "cannot understand the chat template `default`: syntax error");
    refused("{{ raise_exception('never ' + messages[0].role) }}", &row(), "row 1: the chat template `default` refuses");
    refused("{{ raise_exception('never ' + messages[0].role) }}", &row(), "never user");
    let picture = json!({"messages": [{"role": "user", "content": [{"type": "image"}]}]});
    refused(PIPES, &picture, "parts other than text");
}

/// Rows with the other form of content than the template has are given the template's.
#[test]
fn content_is_given_as_the_template_takes_it() {
    let parts = "{% for m in messages %}<|turn|>{% for part in m.content %}{{ part.text }}{% endfor %}{% endfor %}";
    let row = |content: Value| json!({"messages": [{"role": "user", "content": content}]});
    let (text, list) = (row("a b".into()), row(json!([{"type": "text", "text": "a"}, {"type": "text", "text": "b"}])));
    let of = |template, row| {
        let dir = with_template(template);
        tokens(&options(dir.path()), row).unwrap().0
    };
    assert_eq!(of(parts, &text), ids("<|turn|>a b"));
    assert_eq!(of(parts, &list), ids("<|turn|>ab"));
    assert_eq!(of(PIPES, &list), ids("<|turn|>user: a\nb<|over|>"));
}

/// Templates come from strangers: neither time nor memory without bounds.
#[test]
fn templates_that_never_end_are_stopped() {
    let loops = "{% for a in range(10000) %}{% for b in range(10000) %}{% for c in range(10000) %}x{% endfor %}{% endfor %}{% endfor %}";
    let doubling = "{% set ns = namespace(x='abcdefgh') %}{% for i in range(60) %}{% set ns.x = ns.x ~ ns.x %}{% endfor %}{{ ns.x }}";
    let recursion = "{% macro m(x) %}{{ m(x) }}{% endmacro %}{{ m(1) }}";
    let writes = format!("{{% for i in range(100000) %}}{}{{% endfor %}}", "x".repeat(10_000));
    for template in [loops, doubling, recursion, writes.as_str(), "{{ 'x' * 100000000000 }}"] {
        refused(template, &row(), "refuses the conversation");
    }
}
