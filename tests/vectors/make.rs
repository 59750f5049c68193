//! The vectors: what is changed in the good repository, what is then tried, and what must come of it.

mod opening;
mod packs;
mod records;
mod restoring;
mod trees;

use serde_json::{Map, Value as Json, json};

use super::forge::hex;
use super::good::{Good, Objects};

/// Bytes that repeat so often are written as such.
const RUN: usize = 48;

/// All vectors, by the names of their files.
pub(crate) struct Cases {
    pub(crate) good: Good,
    pub(crate) all: Vec<(String, Json)>,
}

/// Objects that take the place of others, are added, or are taken away.
#[derive(Clone, Default)]
pub(crate) struct Changes(Vec<(String, Option<Vec<u8>>)>);

impl Changes {
    pub(crate) fn none() -> Self {
        Self::default()
    }

    pub(crate) fn put(name: impl Into<String>, bytes: Vec<u8>) -> Self {
        Self::none().and(name, bytes)
    }

    pub(crate) fn remove(name: impl Into<String>) -> Self {
        Self::none().without(name)
    }

    pub(crate) fn and(mut self, name: impl Into<String>, bytes: Vec<u8>) -> Self {
        self.0.push((name.into(), Some(bytes)));
        self
    }

    pub(crate) fn without(mut self, name: impl Into<String>) -> Self {
        self.0.push((name.into(), None));
        self
    }

    fn json(&self) -> Json {
        let change = |(name, bytes): &(String, Option<Vec<u8>>)| {
            let bytes = bytes.as_ref().map_or(Json::Null, |bytes| runs(bytes));
            json!({"object": name, "bytes": bytes})
        };
        self.0.iter().map(change).collect()
    }
}

/// Hexadecimal digits; what repeats as the digits and how often.
fn runs(bytes: &[u8]) -> Json {
    let mut parts: Vec<Json> = Vec::new();
    let mut plain = Vec::new();
    for run in bytes.chunk_by(|a, b| a == b) {
        if run.len() < RUN {
            plain.extend_from_slice(run);
            continue;
        }
        parts.push(json!(hex(&std::mem::take(&mut plain))));
        parts.push(json!([hex(&run[..1]), run.len()]));
    }
    parts.push(json!(hex(&plain)));
    if parts.len() == 1 { parts.remove(0) } else { Json::Array(parts) }
}

/// What is tried.
pub(crate) fn open(secret: &str) -> Json {
    json!({"do": "open", "secret": secret})
}

pub(crate) fn list() -> Json {
    json!({"do": "list"})
}

pub(crate) fn find(series: &str, which: &str) -> Json {
    json!({"do": "find", "series": series, "which": which})
}

pub(crate) fn walk(series: &str) -> Json {
    json!({"do": "walk", "series": series, "which": "latest"})
}

pub(crate) fn restore(series: &str) -> Json {
    json!({"do": "restore", "series": series, "which": "latest"})
}

pub(crate) fn object(name: &str) -> Json {
    json!({"do": "object", "object": name})
}

/// What is expected beside the verdict, if anything.
pub(crate) fn nothing() -> Json {
    json!({})
}

pub(crate) fn number(number: u64) -> Json {
    json!({"number": number})
}

pub(crate) fn aside(number: u64, names: &[&str]) -> Json {
    json!({"number": number, "aside": names})
}

impl Cases {
    pub(crate) fn new() -> Self {
        let mut cases = Self { good: Good::new(), all: Vec::new() };
        cases.add_opening();
        cases.add_records();
        cases.add_packs();
        cases.add_trees();
        cases.add_restoring();
        cases
    }

    /// A vector; `what` says what is the matter, and names the file.
    pub(crate) fn add(
        &mut self,
        (what, rule): (&str, &str),
        changes: Changes,
        operation: Json,
        verdict: &str,
        expect: Json,
    ) {
        let slug: String = what.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
        let slug = slug.to_lowercase().split('-').filter(|word| !word.is_empty()).collect::<Vec<_>>().join("-");
        let mut vector = Map::new();
        vector.insert("what".to_owned(), json!(what));
        vector.insert("rule".to_owned(), json!(rule));
        vector.insert("secret".to_owned(), json!("administrator"));
        vector.insert("changes".to_owned(), changes.json());
        vector.extend(operation.as_object().unwrap().clone());
        vector.insert("verdict".to_owned(), json!(verdict));
        vector.insert("expect".to_owned(), expect);
        assert!(!self.all.iter().any(|(name, _)| *name == slug), "{slug} is there twice");
        self.all.push((slug, Json::Object(vector)));
    }

    /// The good repository's object whose name begins so.
    pub(crate) fn first(&self, prefix: &str) -> (String, Vec<u8>) {
        let (name, bytes) = self.good.objects.iter().find(|(name, _)| name.starts_with(prefix)).unwrap();
        (name.clone(), bytes.clone())
    }
}

/// The objects of the good repository with a vector's changes.
pub(crate) fn changed(good: &Objects, vector: &Json) -> Objects {
    let mut objects = good.clone();
    for change in vector["changes"].as_array().unwrap() {
        let name = change["object"].as_str().unwrap().to_owned();
        match &change["bytes"] {
            Json::Null => objects.remove(&name),
            bytes => objects.insert(name, bytes_of(bytes)),
        };
    }
    objects
}

fn bytes_of(json: &Json) -> Vec<u8> {
    let part = |part: &Json| match part {
        Json::Array(run) => super::good::unhex(run[0].as_str().unwrap()).repeat(run[1].as_u64().unwrap() as usize),
        digits => super::good::unhex(digits.as_str().unwrap()),
    };
    match json {
        Json::Array(parts) => parts.iter().flat_map(part).collect(),
        digits => part(digits),
    }
}
