//! Test vectors: one small repository, and what must come of it when something in it is wrong.
//!
//! README.md in this folder says what the files are, so that any implementation can run them. They are made here, from
//! docs/format.md and without the library (`forge`, `pack`, `tree`, `good`, `make`), and run twice: by the library, and
//! by the second reader, docs/reader.py. Beyond them both are given values that were changed at random (`mutations`).
//! After a change of the format, `BLESS_GOLDEN=1 cargo test --test vectors the_vectors` writes the files anew.

#![allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    clippy::wildcard_imports,
    reason = "a test stops where it fails"
)]

mod forge;
mod good;
mod library;
mod make;
mod mutations;
mod pack;
mod python;
mod tree;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value as Json, json};

use good::{ADMINISTRATOR, Objects, PASSPHRASE, REMOVED};
use make::{Cases, changed};

/// All files together stay below this.
const BYTES_MAX: u64 = 3 << 19;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors")
}

/// What the vectors' secrets are.
fn secrets() -> Json {
    json!({
        "administrator": {"key": forge::hex(&ADMINISTRATOR)},
        "phone": {"passphrase": PASSPHRASE},
        "removed": {"key": forge::hex(&REMOVED)},
        "nobody": {"key": forge::hex(&[0; 32])},
    })
}

/// The files by their names under the folder of the vectors.
fn generated(cases: &Cases) -> BTreeMap<String, Vec<u8>> {
    let text = |json: &Json| format!("{}\n", serde_json::to_string_pretty(json).unwrap()).into_bytes();
    let objects = cases.good.objects.iter().map(|(name, bytes)| (format!("good/{name}"), bytes.clone()));
    let vectors = cases.all.iter().map(|(name, vector)| (format!("cases/{name}.json"), text(vector)));
    let listing = json!({"series": "photos", "number": 5, "entries": cases.good.photos});
    let others = [("secrets.json".to_owned(), text(&secrets())), ("photos-5.json".to_owned(), text(&listing))];
    objects.chain(vectors).chain(others).collect()
}

/// The files that are kept.
fn kept() -> BTreeMap<String, Vec<u8>> {
    let mut files = BTreeMap::new();
    for part in ["good", "cases"] {
        collect(&folder().join(part), part, &mut files);
    }
    for name in ["secrets.json", "photos-5.json"] {
        files.extend(fs::read(folder().join(name)).ok().map(|bytes| (name.to_owned(), bytes)));
    }
    files
}

fn collect(folder: &Path, prefix: &str, files: &mut BTreeMap<String, Vec<u8>>) {
    for entry in fs::read_dir(folder).into_iter().flatten() {
        let path = entry.unwrap().path();
        let name = format!("{prefix}/{}", path.file_name().unwrap().to_str().unwrap());
        if path.is_dir() { collect(&path, &name, files) } else { drop(files.insert(name, fs::read(&path).unwrap())) }
    }
}

/// The vectors as they are kept, by name.
fn vectors() -> (Objects, Vec<(String, Json)>) {
    let (mut good, mut vectors) = (Objects::new(), Vec::new());
    for (name, bytes) in kept() {
        if let Some(object) = name.strip_prefix("good/") {
            good.insert(object.to_owned(), bytes);
        } else if let Some(vector) = name.strip_prefix("cases/") {
            let json = serde_json::from_slice(&bytes).unwrap();
            vectors.push((vector.trim_end_matches(".json").to_owned(), json));
        }
    }
    (good, vectors)
}

#[test]
fn the_vectors_are_what_the_generator_makes() {
    let generated = generated(&Cases::new());
    if std::env::var_os("BLESS_GOLDEN").is_some() {
        for name in kept().keys().filter(|name| !generated.contains_key(*name)) {
            fs::remove_file(folder().join(name)).unwrap();
        }
        for (name, bytes) in &generated {
            let path = folder().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, bytes).unwrap();
        }
    }
    let kept = kept();
    for name in generated.keys().chain(kept.keys()) {
        assert!(
            generated.get(name) == kept.get(name),
            "{name} is not what the generator makes: if the format was to change, write the vectors anew"
        );
    }
    let bytes: u64 = kept.values().map(|bytes| bytes.len() as u64).sum();
    assert!(bytes <= BYTES_MAX, "{bytes} bytes are too many");
    let page = fs::read_to_string(folder().join("../../docs/format.md")).unwrap();
    for (name, vector) in &vectors().1 {
        let rule = vector["rule"].as_str().unwrap();
        assert!(page.contains(&format!("**{rule}.")), "{name}: the page has no rule {rule}");
    }
    let bad = vectors().1.iter().filter(|(_, vector)| vector["verdict"] != "fine").count();
    assert!(bad >= 90, "{bad} vectors of what is wrong are too few");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_library_agrees() {
    let (good, vectors) = vectors();
    let mut wrong = Vec::new();
    for (name, vector) in &vectors {
        let outcome = library::run(&changed(&good, vector), vector).await;
        wrong.extend(outcome.differs(name, vector));
    }
    assert!(wrong.is_empty() && !vectors.is_empty(), "{} of {}:\n{}", wrong.len(), vectors.len(), wrong.join("\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_good_repository_holds_what_it_should() {
    let (good, _) = vectors();
    let listing: Json = serde_json::from_slice(&kept()["photos-5.json"]).unwrap();
    assert_eq!(library::listing(&good, "photos", 5).await, listing["entries"]);
    library::is_whole(&good).await;
}

#[test]
fn the_second_reader_agrees() {
    python::run(&["tests/vectors/run.py"], vectors().1.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_second_reader_reads_what_the_library_writes() {
    python::reads_what_the_library_writes().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_library_and_the_second_reader_agree_on_values_changed_at_random() {
    mutations::agree().await;
}
