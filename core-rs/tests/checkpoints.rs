//! One model in every format, written by the programs that the formats belong to (tests/fixtures/checkpoints): each
//! folder must give the ids and the greedy tokens that transformers gives, and so must everything converted from it.

use std::path::{Path, PathBuf};
use std::time::Duration;

use llamero::checkpoint::Checkpoint;
use llamero::convert;
use llamero::error::ErrorKind;
use llamero::inspect::{self, Machine};
use llamero::kernels::CacheType;
use llamero::load::Loaded;
use llamero::platform::{Source, Task};
use llamero::quantize::FileType;
use llamero::records::HostEvent;
use serde::Deserialize;

#[derive(Deserialize)]
struct Greedy {
    prompt: String,
    ids: Vec<u32>,
    tokens: Vec<u32>,
}

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/checkpoints")
}

fn greedy(path: &str) -> Vec<Greedy> {
    let text = std::fs::read_to_string(fixtures().join(path)).expect("golden file");
    serde_json::from_str(&text).expect("golden JSON")
}

fn load(source: &Source) -> Loaded {
    let checkpoint = source.open().unwrap_or_else(|e| panic!("{e}"));
    let plan = checkpoint.plan(None).unwrap_or_else(|e| panic!("{e}"));
    checkpoint.load(plan, CacheType::F16, &mut |_, _| Ok(())).unwrap_or_else(|e| panic!("{e}"))
}

/// The most probable token after each step.
fn generate(loaded: &Loaded, ids: &[u32], n: usize) -> Vec<u32> {
    let (mut cache, mut ids, mut fed) = (loaded.model.new_cache(), ids.to_vec(), 0);
    let prompt = ids.len();
    for _ in 0..n {
        let logits = loaded.model.logits(&ids[fed..], &mut cache).expect("logits");
        fed = ids.len();
        ids.push((0..logits.len()).max_by(|&a, &b| logits[a].total_cmp(&logits[b])).expect("vocabulary") as u32);
    }
    ids[prompt..].to_vec()
}

fn assert_says(source: &Source, golden: &str) {
    let loaded = load(source);
    for Greedy { prompt, ids, tokens } in greedy(golden) {
        assert_eq!(loaded.tokenizer.encode(&[&prompt]).expect("text"), ids, "ids of {prompt:?}: {source:?}");
        assert_eq!(generate(&loaded, &ids, tokens.len()), tokens, "{prompt:?}: {source:?}");
    }
}

const FORMATS: [&str; 7] = [
    "f16.gguf",
    "hf-safetensors",
    "hf-torch",
    "paddle",
    "paddle-p2",
    // Files of a folder stand for it.
    "paddle/model_state.pdparams",
    "hf-torch/pytorch_model.bin.index.json",
];

#[test]
fn every_format_says_the_same() {
    for format in FORMATS {
        assert_says(&Source::new(fixtures().join(format)), "greedy.json");
    }
}

#[test]
fn adapters_merge_into_every_format() {
    for format in ["f16.gguf", "hf-safetensors", "paddle-p2"] {
        let source = Source { lora: vec![fixtures().join("lora")], ..Source::new(fixtures().join(format)) };
        assert_says(&source, "lora/greedy.json");
    }
}

#[test]
fn a_delta_is_added_value_by_value() {
    let base = Source::new(fixtures().join("hf-safetensors")).open().expect("a base");
    let path = fixtures().join("paddle-p2");
    let sum = Source { base: Some(fixtures().join("hf-torch")), ..Source::new(path) }.open().expect("a sum");
    for (i, info) in base.head().tensors.iter().enumerate() {
        let j = sum.head().tensors.iter().position(|t| t.name == info.name).expect("the same tensors");
        let read = |checkpoint: &Checkpoint, i: usize| {
            let rows = checkpoint.rows(i).expect("rows");
            let mut values = vec![0.0; rows.n_rows() * rows.row_len()];
            rows.read_f32(0..rows.n_rows(), &mut values).expect("values");
            values
        };
        let doubled: Vec<f32> = read(&base, i).iter().map(|v| 2.0 * v).collect();
        assert_eq!(read(&sum, j), doubled, "{}", info.name);
    }
    let wrong = Source { base: Some(fixtures().join("../tiny-llama2.gguf")), ..Source::new(fixtures().join("paddle")) };
    let error = wrong.open().err().expect("refused");
    assert!(error.to_string().contains("adding the delta: expected"), "{error}");
}

/// Runs a task to its end.
fn run(config: serde_json::Value) -> Result<serde_json::Value, llamero::error::Error> {
    let task = Task::start(serde_json::from_value(config).expect("a task")).expect("a thread");
    let mut outcome = None;
    while outcome.is_none() {
        task.drain(Duration::from_secs(1), &mut |event| {
            match event {
                HostEvent::Ready => outcome = Some(Ok(())),
                HostEvent::Failed(error) => outcome = Some(Err(error.clone())),
                _ => {}
            }
            true
        })
        .expect("open");
    }
    outcome.expect("ended")?;
    Ok(serde_json::from_str(&task.result()?).expect("JSON"))
}

fn convert_to(
    path: &Path,
    out: &Path,
    file_type: &str,
    format: &str,
) -> Result<serde_json::Value, llamero::error::Error> {
    run(serde_json::json!({
        "task": "convert", "source": {"path": path}, "out": out, "file_type": file_type, "format": format
    }))
}

#[test]
fn what_is_converted_says_the_same() {
    let dir = tempfile::tempdir().expect("folder");
    for (from, to, file_type, format) in [
        ("paddle", "from-paddle.gguf", "f16", "gguf"),
        ("hf-torch", "from-torch.gguf", "f32", "gguf"),
        ("paddle-p2", "safe-from-paddle", "f16", "safetensors"),
        ("f16.gguf", "safe-from-gguf", "f32", "safetensors"),
    ] {
        let out = dir.path().join(to);
        let made =
            convert_to(&fixtures().join(from), &out, file_type, format).unwrap_or_else(|e| panic!("{from}: {e}"));
        assert_eq!(made["path"], out.to_str().expect("UTF-8"));
        assert_says(&Source::new(&out), "greedy.json");
    }
}

#[test]
fn conversions_agree_bit_by_bit() {
    let dir = tempfile::tempdir().expect("folder");
    for file_type in FileType::ALL {
        let name = file_type.name();
        let files: Vec<_> = ["paddle", "hf-safetensors"]
            .map(|from| {
                let out = dir.path().join(format!("{from}-{name}.gguf"));
                convert_to(&fixtures().join(from), &out, name, "gguf")
                    .unwrap_or_else(|e| panic!("{from} to {name}: {e}"));
                std::fs::read(out).expect("output")
            })
            .into();
        assert!(files[0] == files[1], "{name} differs");
    }
}

#[test]
fn a_broken_run_is_taken_up() {
    let dir = tempfile::tempdir().expect("folder");
    let checkpoint = Source::new(fixtures().join("paddle")).open().expect("a checkpoint");
    let file = &convert::plan_gguf(&checkpoint, FileType::Q8_0).expect("a plan").files[0];
    let whole = dir.path().join("whole.gguf");
    convert_to(&fixtures().join("paddle"), &whole, "q8_0", "gguf").expect("converts");
    let whole = std::fs::read(whole).expect("output");
    assert_eq!(whole.len() as u64, file.len);

    /// What a process that dies after some tensors leaves.
    struct Dies(Vec<u8>, usize);
    impl convert::Sink for Dies {
        fn write(&mut self, bytes: &[u8]) -> llamero::error::Result<()> {
            self.0.extend_from_slice(bytes);
            Ok(())
        }
        fn tensor_done(&mut self, tensor: usize) -> llamero::error::Result<()> {
            if tensor == self.1 { Err(llamero::error::Error::internal("died")) } else { Ok(()) }
        }
    }
    for dies_at in [0, 3, file.tensors.len() - 1] {
        let mut first = Dies(Vec::new(), dies_at);
        file.write(&checkpoint, 0, &mut first, &mut |_| Ok(())).expect_err("dies");
        let position = file.position(dies_at + 1) as usize;
        assert_eq!(first.0.len(), position);
        let mut second = Dies(first.0, usize::MAX);
        file.write(&checkpoint, dies_at + 1, &mut second, &mut |_| Ok(())).expect("goes on");
        assert!(second.0 == whole, "after tensor {dies_at}");
    }
}

#[test]
fn what_is_there_is_not_overwritten_by_chance() {
    let dir = tempfile::tempdir().expect("folder");
    let out = dir.path().join("mine.gguf");
    std::fs::write(&out, "precious").expect("a file");
    let error = convert_to(&fixtures().join("paddle"), &out, "f16", "gguf").expect_err("refused");
    assert_eq!(error.kind(), ErrorKind::InvalidRequest);
    assert_eq!(std::fs::read(&out).expect("a file"), b"precious");
}

/// Copies the files of a fixture.
fn copy_fixture(name: &str, to: &Path) {
    std::fs::create_dir_all(to).expect("a folder");
    for entry in std::fs::read_dir(fixtures().join(name)).expect("fixtures") {
        let path = entry.expect("an entry").path();
        std::fs::copy(&path, to.join(path.file_name().expect("a name"))).expect("a copy");
    }
}

/// A folder is replaced as a whole, and only when it holds nothing else.
#[test]
fn a_folder_of_before_leaves_nothing_behind() {
    let dir = tempfile::tempdir().expect("folder");
    let out = dir.path().join("model");
    let convert = |from: &Path, overwrite: bool| {
        run(serde_json::json!({
            "task": "convert", "source": {"path": from}, "out": &out, "file_type": "f32", "format": "safetensors",
            "overwrite": overwrite,
        }))
    };
    // Shards and an index of another model, which would win over what is written.
    copy_fixture("hf-safetensors", &out);
    convert(&fixtures().join("f16.gguf"), false).expect_err("it is there");
    convert(&out, true).expect_err("it is the source");
    convert(&fixtures().join("f16.gguf"), true).expect("replaces");
    let entries = std::fs::read_dir(&out).expect("a folder");
    let mut names: Vec<_> = entries.map(|e| e.expect("an entry").file_name()).collect();
    names.sort();
    assert_eq!(
        names,
        ["config.json", "generation_config.json", "model.safetensors", "tokenizer.model", "tokenizer_config.json"]
    );
    assert_says(&Source::new(&out), "greedy.json");
    assert_eq!(std::fs::read_dir(dir.path()).expect("a folder").count(), 1, "nothing beside it");
    std::fs::write(out.join("thesis.txt"), "precious").expect("a file");
    let error = convert(&fixtures().join("paddle"), true).expect_err("refused");
    assert!(error.to_string().contains("thesis.txt"), "{error}");
}

#[test]
fn models_that_say_one_thing_and_hold_another_are_refused() {
    let dir = tempfile::tempdir().expect("folder");
    copy_fixture("paddle", dir.path());
    let config = std::fs::read_to_string(dir.path().join("config.json")).expect("config");
    let mut config: serde_json::Value = serde_json::from_str(&config).expect("JSON");
    for (layers, word) in [(3, "expected tensor blk.2."), (1, "got blk.1.")] {
        config["num_hidden_layers"] = layers.into();
        std::fs::write(dir.path().join("config.json"), config.to_string()).expect("written");
        let error = Source::new(dir.path()).open().expect("opens").plan(None).err().expect("refused");
        assert!(error.to_string().contains(word), "{error}");
    }
}

#[test]
fn quantised_once_and_found_again() {
    let dir = tempfile::tempdir().expect("folder");
    let cache = |path: &str| {
        run(serde_json::json!({
            "task": "cache", "source": {"path": fixtures().join(path)}, "folder": dir.path(), "file_type": "q8_0"
        }))
        .expect("quantises")
    };
    let (first, again, other) = (cache("paddle"), cache("paddle"), cache("hf-torch"));
    assert_eq!((first["reused"].as_bool(), again["reused"].as_bool()), (Some(false), Some(true)));
    assert_eq!(first["path"], again["path"]);
    assert_ne!(first["path"], other["path"]);
    load(&Source::new(first["path"].as_str().expect("a path")));
}

#[test]
fn what_cannot_fit_is_refused_with_what_would() {
    let checkpoint = Source::new(fixtures().join("paddle")).open().expect("a checkpoint");
    let plan = checkpoint.plan(None).expect("a plan");
    let need = inspect::need(checkpoint.weight_bytes(), plan.config());
    let check = |available| inspect::check(&checkpoint, plan.config(), Machine { total: 1 << 40, available });
    check(need.least).expect("fits with a short context");
    let error = check(need.least - 1).expect_err("refused");
    assert_eq!(error.kind(), ErrorKind::InsufficientResources);
    let text = error.to_string();
    assert!(text.contains("of free memory") && text.contains("instead --quantize q8_0 takes"), "{text}");
    assert!(check(1 << 20).expect_err("refused").to_string().contains("no smaller form of it would fit"));
}

#[test]
fn inspection_tells_layout_and_memory() {
    let report =
        run(serde_json::json!({"task": "inspect", "source": {"path": fixtures().join("paddle")}})).expect("report");
    assert_eq!(report["format"], "paddle");
    assert!(report["layout"].as_str().expect("a layout").starts_with("[in, out] (PaddleNLP), by "), "{report:#}");
    assert_eq!(report["memory"]["fits"], true);
    let total: u64 =
        report["groups"].as_array().expect("groups").iter().map(|g| g["bytes"].as_u64().expect("bytes")).sum();
    assert_eq!(report["memory"]["weights"].as_u64(), Some(total));
}
