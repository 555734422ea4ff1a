//! What a value must be: each [`Kind`] reads a raw value (of a file, a variable or a flag) into its canonical form.

use std::net::IpAddr;

use serde_json::{Value, json};

use super::rooms::ChannelRegex;
use super::units;

/// What values a key takes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Kind {
    /// `true` or `false`.
    Flag,
    /// A whole number within the bounds, both included.
    Number(u64, u64),
    /// A port; 0 takes any free one.
    Port,
    /// A share: above 0 and at most 1.
    Share,
    /// A duration within the bounds, in milliseconds, both included.
    Duration(u64, u64),
    /// A size within the bounds, in bytes, both included.
    Size(u64, u64),
    /// Any text.
    Text,
    /// Text that is shown to nobody.
    Secret,
    /// A list of texts.
    Texts,
    /// A list of Redis addresses, whose passwords are shown to nobody.
    RedisAddresses,
    /// Addresses of nodes of a Redis Cluster, or of Sentinels; a text may hold several with commas between.
    RedisNodes,
    /// One of these words.
    Choice(&'static [&'static str]),
    /// An IP address, or nothing.
    Address,
    /// A path that begins with a slash.
    Path,
    /// A regular expression, or nothing.
    Regex,
    /// The name of a namespace.
    NamespaceName,
    /// Not looked at: the key has no effect.
    Ignored,
}

/// The longest time that a timer takes, in ms: a day.
pub const DAY: u64 = 24 * 3600 * 1000;

impl Kind {
    /// Reads `raw` into the form that the settings' types deserialize. Text that holds a number, a flag or a
    /// list counts as one, because variables hold nothing but text.
    ///
    /// # Errors
    /// A sentence that says what is wrong and what would do.
    pub fn read(self, raw: &Value) -> Result<Value, String> {
        match self {
            Self::Flag => flag(raw).map(Value::from),
            Self::Number(least, most) => {
                let expected = || format!("expected a whole number from {least} to {most}");
                let number = whole(raw).ok_or_else(expected)?;
                if (least..=most).contains(&number) { Ok(number.into()) } else { Err(expected()) }
            }
            Self::Port => {
                let port = whole(raw).and_then(|number| u16::try_from(number).ok());
                port.map(Value::from)
                    .ok_or_else(|| "expected a port: a number from 0 (any free one) to 65535".to_owned())
            }
            Self::Share => share(raw),
            Self::Duration(least, most) => duration(raw, least, most),
            Self::Size(least, most) => size(raw, least, most),
            Self::Text | Self::Secret => text(raw).map(Value::from),
            Self::Texts => texts(raw).map(Value::from),
            Self::RedisAddresses => redis_addresses(raw),
            Self::RedisNodes => redis_nodes(raw),
            Self::Choice(words) => {
                let word = text(raw)?.to_ascii_lowercase();
                let quoted = || words.iter().map(|word| format!("{word:?}")).collect::<Vec<_>>().join(", ");
                if words.contains(&word.as_str()) {
                    Ok(word.into())
                } else {
                    Err(format!("expected one of {}", quoted()))
                }
            }
            Self::Address => address(raw),
            Self::Path => {
                let path = text(raw)?;
                let good = path.starts_with('/') && path.len() > 1 && !path.contains(['?', '#', ' ']);
                if good { Ok(path.trim_end_matches('/').into()) } else { Err(PATH.to_owned()) }
            }
            Self::Regex => {
                let source = text(raw)?;
                ChannelRegex::new(&source)
                    .map_err(|error| format!("no regular expression that Tidegate understands ({error})"))?;
                Ok(source.into())
            }
            Self::NamespaceName => {
                let name = text(raw)?;
                let good = name.len() >= 2 && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b));
                if good { Ok(name.into()) } else { Err(NAMESPACE_NAME.to_owned()) }
            }
            Self::Ignored => Ok(raw.clone()),
        }
    }

    /// Writes a value for a person: secrets are masked, sizes and texts are as one writes them in a file.
    pub fn show(self, value: &Value) -> String {
        match (self, value) {
            (Self::Secret, Value::String(text)) if text.is_empty() => "\"\"".to_owned(),
            (Self::Secret, _) => "\"***\"".to_owned(),
            (Self::RedisAddresses | Self::RedisNodes, value) => mask_passwords(value).to_string(),
            (Self::Size(..), Value::Number(number)) => number.as_u64().map_or_else(
                || number.to_string(),
                |bytes| match units::format_size(bytes) {
                    text if text == bytes.to_string() => text,
                    text => format!("\"{text}\""),
                },
            ),
            (_, value) => value.to_string(),
        }
    }
}

const PATH: &str = "expected a path that begins with a slash and names something, as /connection/websocket";
const NAMESPACE_NAME: &str = "expected a name of two or more letters, digits, '-', '_' or '.' (^[-a-zA-Z0-9_.]{2,}$)";

/// The text of a value; numbers and flags count as their text.
fn text(raw: &Value) -> Result<String, String> {
    match raw {
        Value::String(text) => Ok(text.clone()),
        Value::Number(number) => Ok(number.to_string()),
        Value::Bool(flag) => Ok(flag.to_string()),
        _ => Err("expected a text".to_owned()),
    }
}

fn flag(raw: &Value) -> Result<bool, String> {
    match raw {
        Value::Bool(flag) => Some(*flag),
        Value::String(text) => match text.trim().to_ascii_lowercase().as_str() {
            "true" | "1" => Some(true),
            "false" | "0" | "" => Some(false),
            _ => None,
        },
        _ => None,
    }
    .ok_or_else(|| "expected true or false".to_owned())
}

fn whole(raw: &Value) -> Option<u64> {
    match raw {
        Value::Number(number) => number.as_u64(),
        Value::String(text) => text.trim().parse().ok(),
        _ => None,
    }
}

fn share(raw: &Value) -> Result<Value, String> {
    let number = match raw {
        Value::Number(number) => number.as_f64(),
        Value::String(text) => text.trim().parse().ok(),
        _ => None,
    };
    match number {
        Some(share) if share > 0.0 && share <= 1.0 => Ok(json!(share)),
        _ => Err("expected a share of the memory limit: above 0 and at most 1, as 0.85".to_owned()),
    }
}

fn duration(raw: &Value, least: u64, most: u64) -> Result<Value, String> {
    let parsed = match raw {
        Value::String(text) => units::parse_duration(text)?,
        Value::Number(number) if number.as_u64() == Some(0) => std::time::Duration::ZERO,
        Value::Number(number) => units::parse_duration(&number.to_string())?,
        _ => return Err("expected a duration, as 25s or 1m30s".to_owned()),
    };
    let millis = parsed.as_millis();
    if millis < least.into() || parsed > std::time::Duration::from_millis(most) {
        let write = |ms| units::format_duration(std::time::Duration::from_millis(ms));
        return Err(format!("expected a duration from {} to {}", write(least), write(most)));
    }
    Ok(units::format_duration(parsed).into())
}

fn size(raw: &Value, least: u64, most: u64) -> Result<Value, String> {
    let bytes = match raw {
        Value::Number(number) => number.as_u64().ok_or("expected a size: whole bytes, or a text as \"64KiB\"")?,
        Value::String(text) => units::parse_size(text)?,
        _ => return Err("expected a size: bytes, or a text as \"64KiB\"".to_owned()),
    };
    if (least..=most).contains(&bytes) {
        Ok(bytes.into())
    } else {
        Err(format!("expected a size from {} to {}", units::format_size(least), units::format_size(most)))
    }
}

/// A list of texts. A single text is a list too, cut at commas and spaces: so the incumbent reads it.
fn texts(raw: &Value) -> Result<Vec<String>, String> {
    match raw {
        Value::Array(items) => items.iter().map(text).collect::<Result<_, _>>().map_err(|_| TEXTS.to_owned()),
        Value::String(text) => {
            let parts = text.split([',', ' ']).filter(|part| !part.is_empty());
            Ok(parts.map(str::to_owned).collect())
        }
        _ => Err(TEXTS.to_owned()),
    }
}

const TEXTS: &str = "expected a list of texts, as [\"https://example.com\"]";

fn redis_addresses(raw: &Value) -> Result<Value, String> {
    let addresses = texts(raw)?;
    if addresses.len() != 1 {
        let several = "spreading channels over several Redis servers is not built yet";
        return Err(format!("expected exactly one address, as [\"redis://127.0.0.1:6379\"]: {several}"));
    }
    addresses.iter().map(|address| redis_address(address)).collect()
}

fn redis_nodes(raw: &Value) -> Result<Value, String> {
    let texts = texts(raw)?;
    let nodes = texts.iter().flat_map(|text| text.split(',')).map(str::trim);
    nodes.filter(|node| !node.is_empty()).map(redis_address).collect()
}

fn redis_address(address: &str) -> Result<Value, String> {
    match address.split_once("://") {
        None => Ok(format!("redis://{address}").into()),
        Some(("redis", rest)) if !rest.is_empty() => Ok(address.into()),
        Some(("rediss", _)) => Err("TLS to Redis is not built yet: use redis://host:port".to_owned()),
        Some(_) => Err("expected an address as redis://host:port".to_owned()),
    }
}

fn address(raw: &Value) -> Result<Value, String> {
    let text = text(raw)?;
    if text.is_empty() || text == "localhost" || text.parse::<IpAddr>().is_ok() {
        return Ok(text.into());
    }
    Err("expected an IP address, as 127.0.0.1, 0.0.0.0 or ::1".to_owned())
}

/// Replaces what stands between the scheme and the last `@` of each text.
fn mask_passwords(value: &Value) -> Value {
    match value {
        Value::Array(items) => items.iter().map(mask_passwords).collect(),
        Value::String(text) => match text.rsplit_once('@') {
            None => value.clone(),
            Some((before, host)) => {
                let scheme = before.find("://").map_or("", |at| &before[..at + 3]);
                format!("{scheme}***@{host}").into()
            }
        },
        _ => value.clone(),
    }
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::Bool(true) => false,
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::String(text) => matches!(text.as_str(), "" | "0" | "0s" | "false" | "[]" | "{}"),
        Value::Array(items) => items.is_empty(),
        Value::Object(members) => members.is_empty(),
    }
}

/// Whether a value asks for nothing beyond the default of a key that has no effect yet: it is the default, perhaps
/// written otherwise; or an empty text, which is how the incumbent writes "not set"; or, where the default is an empty
/// table, any table, since such settings only count together with the key that turns their feature on.
pub fn is_same(default: &Value, value: &Value) -> bool {
    let is_table = |value: &Value| value.is_object();
    if value == default
        || value == ""
        || (is_empty(default) && (is_empty(value) || is_table(default) && is_table(value)))
    {
        return true;
    }
    let (Ok(default), Ok(value)) = (text(default), text(value)) else { return false };
    let durations = (units::parse_duration(&default), units::parse_duration(&value));
    default == value || matches!(durations, (Ok(one), Ok(other)) if one == other)
}
