//! What the JSON files beside a vocabulary say about it.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value as Json;

use super::{Draft, MAX_FILE_LEN, VocabFiles};
use crate::error::{Error, Result};
use crate::formats::gguf::{Array, Value};

/// A token that is not the model's own, or that means something else than to the model.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Added {
    pub id: u32,
    pub text: String,
    /// Whether it steers the model and is no text.
    pub is_special: bool,
}

/// All of it.
#[derive(Debug, Default)]
pub(super) struct Settings {
    /// Absent when no file says so.
    pub legacy: Option<bool>,
    pub add_bos: Option<bool>,
    pub add_eos: Option<bool>,
    pub add_prefix_space: Option<bool>,
    /// Whether the tokenizer is one of Llama's, which begin texts with bos by default.
    pub is_llama: bool,
    /// Texts of special tokens by role.
    names: BTreeMap<&'static str, String>,
    /// Ids by role, from the configuration of generation or of the model.
    ids: BTreeMap<&'static str, Vec<u32>>,
    pub added: Vec<Added>,
    pub templates: Templates,
}

/// Jinja chat templates.
#[derive(Debug, Default)]
pub(super) struct Templates {
    default: Option<String>,
    named: BTreeMap<String, String>,
}

/// tokenizer_config.json, as far as it is used.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct TokenizerConfig {
    legacy: Option<bool>,
    add_bos_token: Option<bool>,
    add_eos_token: Option<bool>,
    add_prefix_space: Option<bool>,
    tokenizer_class: Option<String>,
    added_tokens_decoder: BTreeMap<String, AddedToken>,
    chat_template: Option<ChatTemplate>,
}

/// A token with its properties.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct AddedToken {
    pub id: u32,
    pub content: String,
    pub special: bool,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum ChatTemplate {
    One(String),
    Many(Vec<NamedTemplate>),
}

#[derive(Debug, Deserialize)]
struct NamedTemplate {
    name: String,
    template: String,
}

const ROLES: [&str; 4] = ["bos", "eos", "unk", "pad"];

impl Settings {
    pub fn read(files: &VocabFiles) -> Result<Self> {
        let config: TokenizerConfig = parse("tokenizer_config.json", files.tokenizer_config)?;
        let texts = [
            parse("tokenizer_config.json", files.tokenizer_config)?,
            parse("special_tokens_map.json", files.special_tokens_map)?,
        ];
        let numbers = [parse("generation_config.json", files.generation_config)?, parse("config.json", files.config)?];
        let names = ROLES.into_iter().filter_map(|role| {
            let key = format!("{role}_token");
            Some((role, texts.iter().find_map(|file: &Json| token_text(&file[&key]))?))
        });
        let ids = ROLES.into_iter().filter_map(|role| {
            let key = format!("{role}_token_id");
            Some((role, numbers.iter().find_map(|file: &Json| token_ids(&file[&key]))?))
        });
        let mut settings = Self {
            legacy: config.legacy,
            add_bos: config.add_bos_token,
            add_eos: config.add_eos_token,
            add_prefix_space: config.add_prefix_space,
            is_llama: config.tokenizer_class.is_some_and(|class| class.contains("Llama")),
            names: names.collect(),
            ids: ids.collect(),
            added: Vec::new(),
            templates: Templates::new(config.chat_template, files.chat_template)?,
        };
        settings.added = added(files.added_tokens, config.added_tokens_decoder, &settings.special_texts(&texts))?;
        Ok(settings)
    }

    /// Texts that are special wherever they are added.
    fn special_texts(&self, files: &[Json]) -> BTreeSet<String> {
        let lists = files.iter().filter_map(|file| file["additional_special_tokens"].as_array());
        lists.flatten().filter_map(token_text).chain(self.names.values().cloned()).collect()
    }

    /// The id of the token that has this role (`bos`, `eos`, `unk`, `pad`): by its text, else by number.
    pub fn id(&self, role: &str, draft: &Draft) -> Option<u32> {
        let by_name = self.names.get(role).and_then(|text| draft.id(text));
        let is_row = |id: &u32| (*id as usize) < draft.pieces.len();
        by_name.or_else(|| self.ids.get(role)?.iter().copied().find(is_row))
    }

    /// All ids that end generation by number.
    pub fn ends(&self, draft: &Draft) -> Vec<u32> {
        let ids = self.ids.get("eos").into_iter().flatten();
        ids.copied().filter(|&id| (id as usize) < draft.pieces.len()).collect()
    }
}

/// `added_tokens.json` first, since `added_tokens_decoder` is the newer of the two.
fn added(file: Option<&[u8]>, decoder: BTreeMap<String, AddedToken>, special: &BTreeSet<String>) -> Result<Vec<Added>> {
    let plain: BTreeMap<String, u32> = parse("added_tokens.json", file)?;
    let plain = plain.into_iter().map(|(text, id)| (id, Added { id, is_special: special.contains(&text), text }));
    let mut by_id: BTreeMap<u32, Added> = plain.collect();
    for (id, AddedToken { content, special, .. }) in decoder {
        let id = id.parse().map_err(|_| {
            Error::invalid_format(format!("reading tokenizer_config.json: expected ids of added tokens, got {id:?}"))
        })?;
        by_id.insert(id, Added { id, text: content, is_special: special });
    }
    Ok(by_id.into_values().filter(|added| !added.text.is_empty()).collect())
}

impl Templates {
    fn new(config: Option<ChatTemplate>, file: Option<&[u8]>) -> Result<Self> {
        let mut templates = Self::default();
        match config {
            None => {}
            Some(ChatTemplate::One(text)) => templates.default = Some(text),
            Some(ChatTemplate::Many(list)) => {
                templates.named = list.into_iter().map(|t| (t.name, t.template)).collect()
            }
        }
        if let Some(text) = templates.named.remove("default") {
            templates.default = Some(text);
        }
        if let Some(bytes) = file {
            let text = std::str::from_utf8(bytes).map_err(|_| {
                Error::invalid_format("reading chat_template.jinja: expected UTF-8, got bytes that are not")
            })?;
            templates.default = Some(text.to_owned());
        }
        Ok(templates)
    }

    /// The keys of GGUF.
    pub fn metadata(&self) -> Vec<(String, Value)> {
        const KEY: &str = "tokenizer.chat_template";
        let default = self.default.iter().map(|text| (KEY.to_owned(), Value::String(text.clone())));
        let named = self.named.iter().map(|(name, text)| (format!("{KEY}.{name}"), Value::String(text.clone())));
        let names = (!self.named.is_empty()).then(|| {
            let names = Value::Array(Array::String(self.named.keys().cloned().collect()));
            (format!("{KEY}s"), names)
        });
        default.chain(named).chain(names).collect()
    }
}

/// A JSON file; absent ones are empty objects. What nests deeper than 128 levels is refused by the parser.
pub(super) fn parse<T: DeserializeOwned>(name: &str, bytes: Option<&[u8]>) -> Result<T> {
    let bytes = bytes.unwrap_or(b"{}");
    if bytes.len() > MAX_FILE_LEN {
        let message = format!("reading {name}: expected at most {MAX_FILE_LEN} bytes, got {}", bytes.len());
        return Err(Error::invalid_format(message));
    }
    serde_json::from_slice(bytes).map_err(|e| Error::invalid_format(format!("reading {name}: {e}")))
}

/// A token given as its text, or as an object with its properties.
fn token_text(token: &Json) -> Option<String> {
    token.as_str().or_else(|| token["content"].as_str()).map(str::to_owned)
}

/// One id or a list; none for anything else, such as the -1 of old files.
fn token_ids(value: &Json) -> Option<Vec<u32>> {
    let one = |value: &Json| value.as_u64().and_then(|id| u32::try_from(id).ok());
    match value {
        Json::Array(list) => Some(list.iter().filter_map(one).collect()),
        value => one(value).map(|id| vec![id]),
    }
}
