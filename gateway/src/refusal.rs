//! Refusals before there is a session: short HTTP answers, and what raw TCP gets instead.

use tidegate_protocol::code::DisconnectCode;
use tidegate_protocol::codec::{Format, encode_reply};
use tidegate_protocol::message::{Disconnect, Push, Reply};

/// Appends an answer that ends the connection. `reason` is for a person.
pub fn write(status: u16, reason: &str, out: &mut Vec<u8>) {
    write_with(status, reason, "", out);
}

/// Appends a 503 that says when to come back.
pub fn write_busy(reason: &str, retry_after: u32, out: &mut Vec<u8>) {
    write_with(503, reason, &format!("Retry-After: {retry_after}\r\n"), out);
}

/// What a raw TCP client is told instead: a disconnect after which SDKs come back.
pub fn write_raw_busy(reason: &str, out: &mut Vec<u8>) {
    let code = DisconnectCode::TooManyRequests;
    let disconnect = Disconnect { code: code.code().into(), reason: reason.into(), reconnect: code.reconnect() };
    let push = Push { disconnect: Some(disconnect), ..Push::default() };
    encode_reply(Format::Protobuf, &Reply { push: Some(push), ..Reply::default() }, out);
}

fn write_with(status: u16, reason: &str, headers: &str, out: &mut Vec<u8>) {
    let phrase =
        http::StatusCode::from_u16(status).ok().and_then(|status| status.canonical_reason()).unwrap_or("Error");
    let version = if status == 426 { "Sec-WebSocket-Version: 13\r\n" } else { "" };
    let length = reason.len() + 1;
    out.extend_from_slice(
        format!(
            "HTTP/1.1 {status} {phrase}\r\n{headers}{version}Content-Type: text/plain; charset=utf-8\r\n\
             Content-Length: {length}\r\nConnection: close\r\n\r\n{reason}\n"
        )
        .as_bytes(),
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_a_whole_answer() {
        let mut out = Vec::new();
        write_busy("full", 5, &mut out);
        let text = String::from_utf8(out).unwrap();
        assert!(text.starts_with("HTTP/1.1 503 Service Unavailable\r\nRetry-After: 5\r\n"), "{text}");
        assert!(text.ends_with("Content-Length: 5\r\nConnection: close\r\n\r\nfull\n"), "{text}");
    }
}
