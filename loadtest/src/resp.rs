//! The little of RESP2 that publishing and listening need: commands out, values in.

use crate::url::Url;

/// What this tool takes from Redis in one value at most: 64 MiB.
const MAX_BULK: usize = 64 << 20;
/// Elements of the longest array that is understood; a pub/sub message has three.
const MAX_ELEMENTS: usize = 8;

/// A value that Redis sent.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Value<'a> {
    /// `:1`
    Integer(i64),
    /// `+OK`
    Simple(&'a [u8]),
    /// `-ERR ...`
    Error(&'a [u8]),
    /// `$3`, or nothing
    Bulk(Option<&'a [u8]>),
    /// `*3`
    Array(Vec<Value<'a>>),
}

/// The value that `bytes` begins with and its length; `None` while it is incomplete.
///
/// # Errors
/// What is no RESP2, or too large.
pub(crate) fn value(bytes: &[u8]) -> Result<Option<(Value<'_>, usize)>, &'static str> {
    nested(bytes, true)
}

fn nested(bytes: &[u8], arrays: bool) -> Result<Option<(Value<'_>, usize)>, &'static str> {
    let Some(end) = memchr::memchr(b'\n', bytes) else {
        return if bytes.len() > 64 << 10 { Err("line over 64 KiB") } else { Ok(None) };
    };
    let line = bytes[..end].strip_suffix(b"\r").ok_or("line without CR")?;
    let (kind, rest) = line.split_first().ok_or("empty line")?;
    let after = end + 1;
    match kind {
        b'+' => Ok(Some((Value::Simple(rest), after))),
        b'-' => Ok(Some((Value::Error(rest), after))),
        b':' => Ok(Some((Value::Integer(number(rest)?), after))),
        b'$' => {
            let length = number(rest)?;
            let Ok(length) = usize::try_from(length) else { return Ok(Some((Value::Bulk(None), after))) };
            if length > MAX_BULK {
                return Err("value over 64 MiB");
            }
            let whole = after + length + 2;
            if bytes.len() < whole {
                return Ok(None);
            }
            Ok(Some((Value::Bulk(Some(&bytes[after..after + length])), whole)))
        }
        b'*' if arrays => {
            let elements = usize::try_from(number(rest)?).map_err(|_| "array without a length")?;
            if elements > MAX_ELEMENTS {
                return Err("array over 8 elements");
            }
            let mut values = Vec::with_capacity(elements);
            let mut at = after;
            for _ in 0..elements {
                let Some((value, length)) = nested(&bytes[at..], false)? else { return Ok(None) };
                values.push(value);
                at += length;
            }
            Ok(Some((Value::Array(values), at)))
        }
        _ => Err("value of an unknown kind"),
    }
}

fn number(digits: &[u8]) -> Result<i64, &'static str> {
    str::from_utf8(digits).ok().and_then(|text| text.parse().ok()).ok_or("number that is none")
}

/// Appends a command.
pub(crate) fn push_command(parts: &[&[u8]], out: &mut Vec<u8>) {
    out.extend_from_slice(format!("*{}\r\n", parts.len()).as_bytes());
    for part in parts {
        out.extend_from_slice(format!("${}\r\n", part.len()).as_bytes());
        out.extend_from_slice(part);
        out.extend_from_slice(b"\r\n");
    }
}

/// Reads the URL of a Redis, `redis://[[user]:password@]host[:port]`.
///
/// # Errors
/// Says what is wrong with it.
pub(crate) fn url(url: &str) -> Result<Url, String> {
    Url::parse(url, "redis", 6379).map_err(|fault| format!("--redis: {fault}"))
}

/// Appends the command that logs in, if the URL asks for one; says whether an answer is to come.
pub(crate) fn push_login(url: &Url, out: &mut Vec<u8>) -> bool {
    match url.login() {
        None => return false,
        Some(("", password)) => push_command(&[b"AUTH", password.as_bytes()], out),
        Some((user, password)) => push_command(&[b"AUTH", user.as_bytes(), password.as_bytes()], out),
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_read_whole_or_not_at_all() {
        let message = b"*3\r\n$7\r\nmessage\r\n$4\r\nnews\r\n$2\r\n{}\r\n:5\r\n";
        let (read, length) = value(message).unwrap().unwrap();
        let bulk = |bytes: &'static [u8]| Value::Bulk(Some(bytes));
        assert_eq!(read, Value::Array(vec![bulk(b"message"), bulk(b"news"), bulk(b"{}")]));
        assert_eq!(value(&message[length..]), Ok(Some((Value::Integer(5), 4))));
        for cut in 0..length {
            assert_eq!(value(&message[..cut]), Ok(None));
        }
    }

    #[test]
    fn errors_and_missing_values_are_told_apart() {
        assert_eq!(value(b"-NOAUTH x\r\n"), Ok(Some((Value::Error(b"NOAUTH x"), 11))));
        assert_eq!(value(b"$-1\r\n"), Ok(Some((Value::Bulk(None), 5))));
    }

    #[test]
    fn absurd_lengths_are_refused_before_anything_is_kept() {
        assert!(value(b"$99999999999\r\n").is_err());
        assert!(value(b"*99999999\r\n").is_err());
        assert!(value(b"*1\r\n*1\r\n:1\r\n").is_err());
        assert!(value(b"hello\r\n").is_err());
    }

    #[test]
    fn a_command_is_an_array_of_bulks() {
        let mut out = Vec::new();
        push_command(&[b"PUBLISH", b"push:c", b"{}"], &mut out);
        assert_eq!(out, b"*3\r\n$7\r\nPUBLISH\r\n$6\r\npush:c\r\n$2\r\n{}\r\n");
    }

    #[test]
    fn a_login_is_sent_where_the_url_has_one() {
        let login = |address: &str| {
            let mut out = Vec::new();
            push_login(&url(address).unwrap(), &mut out).then_some(out)
        };
        assert_eq!(login("redis://localhost"), None);
        assert_eq!(login("redis://:pw@localhost").unwrap(), b"*2\r\n$4\r\nAUTH\r\n$2\r\npw\r\n");
        assert_eq!(login("redis://me:pw@localhost").unwrap(), b"*3\r\n$4\r\nAUTH\r\n$2\r\nme\r\n$2\r\npw\r\n");
    }
}
