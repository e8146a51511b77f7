//! Brings the sources of settings together, and remembers where each key came from.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::{fs, io};

use figment::Figment;
use figment::error::Kind;
use figment::providers::{Format, Toml};
use figment::value::Value;

use super::{Args, Config, words};

/// A setting that is wrong: which, where, and why. The operator's fault, and his to mend.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("{}: cannot be read", .path.display())]
    Unreadable { path: PathBuf, source: io::Error },
    #[error("{}: {problem}", .path.display())]
    Syntax { path: PathBuf, problem: String },
    #[error("--set {argument}: must be SECTION.KEY=VALUE")]
    NotAnAssignment { argument: String },
    #[error("{place}: {key}: {problem}")]
    Setting { key: String, place: String, problem: String },
}

const PREFIX: &str = "FLOTILLA_";

/// Keys without a section. A variable `FLOTILLA_X` counts only if X is one of them: Kubernetes
/// gives every container `FLOTILLA_PORT` and the like, if there is a service of that name.
const TOP_LEVEL: [&str; 3] = ["apps", "data_dir", "drain_timeout"];

/// Keys whose values are lists: in the environment and in flags their items are parted by commas.
const LISTS: [&str; 7] = [
    "apps",
    "cluster.seeds",
    "engine.cors_origins",
    "engine.transports",
    "session.index",
    "session.secrets",
    "session.sources",
];

/// One key that the environment or a flag sets.
struct Override {
    key: String,
    text: String,
    place: String,
}

impl Config {
    pub(super) fn from_sources(
        args: &Args,
        environment: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Self, ConfigError> {
        let (mut figment, file) = read_file(args)?;
        let mut overrides = from_environment(environment);
        overrides.extend(from_flags(args)?);
        let mut places = Places { file, overrides: BTreeMap::new() };
        for Override { key, text, place } in overrides {
            let value = value(&key, &text);
            figment = figment.merge((key.as_str(), value));
            places.overrides.insert(key, place);
        }
        let config: Self = figment.extract().map_err(|error| places.explain(error))?;
        config.find_unusable().map_err(|unusable| ConfigError::Setting {
            place: places.of(&unusable.key),
            key: unusable.key,
            problem: unusable.problem,
        })?;
        Ok(config)
    }
}

/// The path of the file, and its text.
type File = (PathBuf, String);

fn read_file(args: &Args) -> Result<(Figment, Option<File>), ConfigError> {
    let figment = Figment::new();
    let Some(path) = args.config.clone() else { return Ok((figment, None)) };
    let text = fs::read_to_string(&path)
        .map_err(|source| ConfigError::Unreadable { path: path.clone(), source })?;
    let figment = figment.merge(Toml::string(&text));
    // Errors of syntax show when the values are first asked for.
    if let Err(error) = figment.extract::<BTreeMap<String, Value>>() {
        let problem = without_source(&error.to_string());
        return Err(ConfigError::Syntax { path, problem });
    }
    Ok((figment, Some((path, text))))
}

/// The parser's message without the line of the file that it quotes: that may be a secret's.
fn without_source(message: &str) -> String {
    let is_quoted = |line: &str| {
        line.trim_start_matches(|c: char| c.is_ascii_digit() || c == ' ').starts_with('|')
    };
    let lines: Vec<&str> = message
        .lines()
        .map(str::trim_end)
        .filter(|line| !is_quoted(line) && !line.is_empty())
        .collect();
    lines.join(": ")
}

fn from_environment(environment: impl IntoIterator<Item = (String, String)>) -> Vec<Override> {
    let mut overrides: Vec<Override> = environment
        .into_iter()
        .filter_map(|(name, text)| {
            let key = name.strip_prefix(PREFIX)?.to_ascii_lowercase().replace("__", ".");
            let counts = key.contains('.') || TOP_LEVEL.contains(&key.as_str());
            counts.then(|| Override { key, text, place: format!("environment variable {name}") })
        })
        .collect();
    overrides.sort_by(|a, b| a.key.cmp(&b.key));
    overrides
}

fn from_flags(args: &Args) -> Result<Vec<Override>, ConfigError> {
    let mut overrides = Vec::new();
    for argument in &args.set {
        let Some((key, text)) = argument.split_once('=').filter(|(key, _)| !key.is_empty()) else {
            let argument = words::shown_argument(argument).to_owned();
            return Err(ConfigError::NotAnAssignment { argument });
        };
        overrides.push(Override {
            key: key.trim().to_owned(),
            text: text.trim().to_owned(),
            place: format!("flag --set {}", words::shown_argument(argument)),
        });
    }
    for (flag, key, text) in args.named() {
        overrides.extend(text.map(|text| Override {
            key: key.to_owned(),
            text: text.to_owned(),
            place: format!("flag {flag}"),
        }));
    }
    Ok(overrides)
}

/// Text as the value that the key wants: a list, a number, a boolean, or the text itself.
fn value(key: &str, text: &str) -> Value {
    if LISTS.contains(&key) && !text.starts_with('[') {
        let items = text.split(',').map(str::trim).filter(|item| !item.is_empty());
        return Value::from(items.map(Value::from).collect::<Vec<_>>());
    }
    text.parse().unwrap_or_else(|never: std::convert::Infallible| match never {})
}

/// Where each key was set.
struct Places {
    file: Option<File>,
    overrides: BTreeMap<String, String>,
}

impl Places {
    /// The place of a key, or of what sets the section that it is in.
    fn of(&self, key: &str) -> String {
        // Of a list or a section, all is set at once.
        let mut whole = Some(key);
        while let Some(set) = whole {
            if let Some(place) = self.overrides.get(set) {
                return place.clone();
            }
            whole = set.rsplit_once('.').map(|(parent, _)| parent);
        }
        if let Some((path, text)) = &self.file
            && let Some(line) = line_of(text, key)
        {
            return format!("{}:{line}", path.display());
        }
        let within =
            |set: &str| set.starts_with(key) && set.as_bytes().get(key.len()) == Some(&b'.');
        if let Some((_, place)) = self.overrides.iter().find(|(set, _)| within(set)) {
            return place.clone();
        }
        "default".to_owned()
    }

    fn explain(&self, error: figment::Error) -> ConfigError {
        let mut path = error.path.clone();
        if let Kind::UnknownField(name, _) = &error.kind
            && path.last() != Some(name)
        {
            path.push(name.clone());
        }
        let key = path.join(".");
        let problem = words::problem(&key, &error.kind);
        ConfigError::Setting { place: self.of(&key), key, problem }
    }
}

/// The line that sets a key, counted from 1; for a section, its header. Values that spread over
/// lines and inline tables are found by their first line.
fn line_of(text: &str, key: &str) -> Option<usize> {
    let mut section = String::new();
    for (number, line) in (1..).zip(text.lines()) {
        let line = line.trim();
        if let Some(header) = line.strip_prefix('[') {
            let header = header.trim_start_matches('[').split(']').next().unwrap_or_default();
            section = unquoted(header);
            if section == key {
                return Some(number);
            }
        } else if let Some((name, _value)) = line.split_once('=') {
            let name = unquoted(name);
            let full = if section.is_empty() { name } else { format!("{section}.{name}") };
            if full == key || key.strip_prefix(&full).is_some_and(|rest| rest.starts_with('.')) {
                return Some(number);
            }
        }
    }
    None
}

fn unquoted(name: &str) -> String {
    name.chars().filter(|c| !matches!(c, '"' | '\'' | ' ')).collect()
}

#[cfg(test)]
mod tests;
