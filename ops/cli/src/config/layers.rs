//! One layer of the configuration each from a file, the environment and the flags, and how they are laid over one
//! another. The `config` crate does the reading, the merging and the remembering of origins.

use crate::config::Settings;
use crate::failure::Failure;
use config::{Config, File, FileFormat, Map, Source, Value, ValueKind};
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::Path;

const PREFIX: &str = "OUTLIVE_";
/// Between a section and its key. Variables without it, such as OUTLIVE_LOG, are not settings.
const SEPARATOR: &str = "__";
/// Settings that hold lists: a variable or a flag gives them with commas between.
const LISTS: [&str; 3] = ["nats.servers", "etcd.endpoints", "keys.files"];
/// A configuration file is a page; this only keeps a wrong path from being read for ever.
const FILE_BYTES_MAX: u64 = 1024 * 1024;

/// Some settings, all from one place.
#[derive(Clone, Debug)]
pub struct Layer {
    values: Map<String, Value>,
}

impl Layer {
    pub fn file(path: &Path) -> Result<Layer, Failure> {
        let shown = path.display();
        let unreadable = |why: String| Failure::usage(format!("the configuration file {shown} cannot be used: {why}"));
        let length = std::fs::metadata(path).map_err(|e| unreadable(e.to_string()))?.len();
        if length > FILE_BYTES_MAX {
            return Err(unreadable(format!("it has {length} bytes; the limit is {FILE_BYTES_MAX}")));
        }
        let source = File::from(path).format(FileFormat::Toml);
        let values = source.collect().map_err(|e| unreadable(e.to_string()))?;
        Ok(Layer { values })
    }

    pub fn environment(variables: impl Iterator<Item = (OsString, OsString)>) -> Layer {
        let settings = variables.filter_map(|(name, value)| {
            let (name, value) = (name.into_string().ok()?, value.into_string().ok()?);
            let key = name.strip_prefix(PREFIX)?;
            let key = key.contains(SEPARATOR).then(|| key.to_lowercase().replace(SEPARATOR, "."))?;
            Some((key, format!("environment variable {name}"), value))
        });
        Layer::of(settings)
    }

    /// Each with its setting's name and its own.
    pub fn flags(flags: Vec<(&'static str, &'static str, String)>) -> Layer {
        Layer::of(flags.into_iter().map(|(key, flag, value)| (key.to_owned(), format!("flag {flag}"), value)))
    }

    fn of(settings: impl Iterator<Item = (String, String, String)>) -> Layer {
        let mut root = Value::new(None, ValueKind::Table(Map::new()));
        for (key, origin, text) in settings {
            let kind = if LISTS.contains(&key.as_str()) {
                let items = text.split(',').map(str::trim).filter(|item| !item.is_empty());
                ValueKind::Array(items.map(|item| Value::new(Some(&origin), item)).collect())
            } else {
                ValueKind::String(text)
            };
            insert(&mut root, key.split('.'), Value::new(Some(&origin), kind));
        }
        let ValueKind::Table(values) = root.kind else { unreachable!("the root stays a table") };
        Layer { values }
    }
}

/// Puts `value` where the path leads, making tables on the way.
fn insert<'a>(at: &mut Value, mut path: impl Iterator<Item = &'a str>, value: Value) {
    let Some(key) = path.next() else {
        *at = value;
        return;
    };
    if !matches!(at.kind, ValueKind::Table(_)) {
        // So that an error below it can be placed.
        *at = Value::new(value.origin().map(str::to_owned).as_ref(), ValueKind::Table(Map::new()));
    }
    if let ValueKind::Table(table) = &mut at.kind {
        insert(table.entry(key.to_owned()).or_insert_with(|| Value::new(None, ValueKind::Nil)), path, value);
    }
}

impl Source for Layer {
    fn clone_into_box(&self) -> Box<dyn Source + Send + Sync> {
        Box::new(self.clone())
    }

    fn collect(&self) -> Result<Map<String, Value>, config::ConfigError> {
        Ok(self.values.clone())
    }
}

/// Every setting with its value, as TOML would write it, and where it came from.
#[derive(Debug)]
pub struct Origins(BTreeMap<String, (String, String)>);

impl Origins {
    #[cfg(test)]
    pub fn of(&self, key: &str) -> Option<&str> {
        self.0.get(key).map(|(_, origin)| origin.as_str())
    }

    /// Setting, value, origin.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str, &str)> {
        self.0.iter().map(|(key, (value, origin))| (key.as_str(), value.as_str(), origin.as_str()))
    }
}

/// Lays each layer over those before it.
pub fn merge(layers: &[Layer]) -> Result<(Settings, Origins), Failure> {
    let defaults = Config::try_from(&Settings::default()).expect("the defaults can be written as a configuration");
    let mut builder = Config::builder().add_source(defaults);
    for layer in layers {
        check(layer)?;
        builder = builder.add_source(layer.clone());
    }
    let merged =
        builder.build().map_err(|e| Failure::usage(format!("the configuration cannot be put together: {e}")))?;
    let mut origins = BTreeMap::new();
    let values = merged.collect().map_err(|e| Failure::usage(format!("the configuration cannot be read: {e}")))?;
    for (key, value) in &values {
        flatten(key.clone(), value, &mut origins);
    }
    let settings = merged.try_deserialize().map_err(|e| Failure::usage(format!("the configuration is wrong: {e}")))?;
    Ok((settings, Origins(origins)))
}

/// Reads the layer by itself, so that what is wrong in it is found there and not in the whole.
fn check(layer: &Layer) -> Result<(), Failure> {
    let alone = Value::new(None, ValueKind::Table(layer.values.clone()));
    alone.try_deserialize::<Settings>().map(drop).map_err(|error| {
        let places = places(&layer.values);
        Failure::usage(format!("the configuration is wrong: {error} (from {places}); see `outlive config show`"))
    })
}

/// Where the values of a layer come from: a file, or some variables.
fn places(values: &Map<String, Value>) -> String {
    let mut all = BTreeMap::new();
    for (key, value) in values {
        flatten(key.clone(), value, &mut all);
    }
    let mut places: Vec<String> = all.into_values().map(|(_, origin)| origin).collect();
    places.sort();
    places.dedup();
    places.join(", ")
}

fn flatten(key: String, value: &Value, into: &mut BTreeMap<String, (String, String)>) {
    match &value.kind {
        ValueKind::Table(table) if !table.is_empty() => {
            for (name, inner) in table {
                flatten(format!("{key}.{name}"), inner, into);
            }
        }
        // Not set, and without a default.
        ValueKind::Nil => {}
        _ => {
            let origin = value.origin().unwrap_or("default").to_owned();
            into.insert(key, (written(value), origin));
        }
    }
}

/// As TOML writes it. JSON's strings are good TOML.
fn written(value: &Value) -> String {
    match &value.kind {
        ValueKind::String(text) => serde_json::Value::from(text.as_str()).to_string(),
        ValueKind::Array(items) => format!("[{}]", items.iter().map(written).collect::<Vec<_>>().join(", ")),
        ValueKind::Table(table) => {
            let pairs: BTreeMap<_, _> = table.iter().collect();
            let pairs: Vec<String> = pairs.iter().map(|(key, value)| format!("{key} = {}", written(value))).collect();
            if pairs.is_empty() { "{}".to_owned() } else { format!("{{ {} }}", pairs.join(", ")) }
        }
        other => other.to_string(),
    }
}
