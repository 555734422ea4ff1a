//! What the official SDKs really send, captured from centrifuge-js 5.8 and centrifuge-python 0.7: it is also where the
//! fuzz targets start (`fuzz/corpus`).
#![allow(clippy::panic, clippy::unwrap_used, reason = "the helpers of a test may fail it")]

use std::path::PathBuf;

use tidegate_protocol::codec::{Commands, Delimited, Format, split_delimited};
use tidegate_protocol::limits::Limits;
use tidegate_protocol::message::{Command, ConnectRequest, SubscribeRequest};
use tidegate_protocol::websocket::assemble::{Assembler, Step};
use tidegate_protocol::websocket::handshake::{Head, parse_head, upgrade};

const SDKS: [&str; 2] = ["javascript", "python"];

/// A file of the corpus.
fn file(target: &str, name: &str) -> Vec<u8> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target).join(name);
    std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn commands(format: Format, message: &[u8]) -> Vec<Command> {
    Commands::new(format, message, &Limits::default()).map(Result::unwrap).collect()
}

/// A command's request, by name.
fn kind(command: &Command) -> &'static str {
    match command {
        Command { connect: Some(_), .. } => "connect",
        Command { subscribe: Some(_), .. } => "subscribe",
        Command { unsubscribe: Some(_), .. } => "unsubscribe",
        Command { publish: Some(_), .. } => "publish",
        Command { presence: Some(_), .. } => "presence",
        Command { presence_stats: Some(_), .. } => "presence_stats",
        Command { history: Some(_), .. } => "history",
        Command { rpc: Some(_), .. } => "rpc",
        Command { send: Some(_), .. } => "send",
        _ => "nothing",
    }
}

#[test]
fn the_first_frame_of_javascript_connects_and_subscribes() {
    for (format, target) in [(Format::Json, "json_commands"), (Format::Protobuf, "protobuf_commands")] {
        let found = commands(format, &file(target, "javascript_connect_and_subscribe"));
        let connect = ConnectRequest {
            token: "eyJhbGciOiJIUzI1NiJ9.e30.x".into(),
            data: r#"{"device":"phone"}"#.into(),
            name: "js".into(),
            ..Default::default()
        };
        let news = SubscribeRequest {
            channel: "news:today".into(),
            data: r#"{"a":1}"#.into(),
            recoverable: true,
            join_leave: true,
            flag: 1,
            recover: true,
            offset: 17,
            epoch: "abcdefgh".into(),
            delta: "fossil".into(),
            ..Default::default()
        };
        let chat = SubscribeRequest { channel: "chat:é".into(), flag: 1, ..Default::default() };
        let expected = [
            Command { id: 1, connect: Some(connect), ..Default::default() },
            Command { id: 2, subscribe: Some(news), ..Default::default() },
            Command { id: 3, subscribe: Some(chat), ..Default::default() },
        ];
        assert_eq!(found, expected, "{format:?}");
    }
}

#[test]
fn every_captured_command_is_understood() {
    let names = ["publish", "presence", "presence_stats", "history", "rpc", "unsubscribe"];
    for (format, target) in [(Format::Json, "json_commands"), (Format::Protobuf, "protobuf_commands")] {
        for (sdk, name) in SDKS.iter().flat_map(|sdk| names.map(|name| (sdk, name))) {
            let found = commands(format, &file(target, &format!("{sdk}_{name}")));
            assert_eq!(found.iter().map(kind).collect::<Vec<_>>(), [name], "{sdk}, {format:?}");
        }
        assert_eq!(kind(&commands(format, &file(target, "javascript_send"))[0]), "send");
        assert_eq!(kind(&commands(format, &file(target, "python_subscribe"))[0]), "subscribe");
    }
}

#[test]
fn the_sdks_handshakes_choose_their_format() {
    for (sdk, (name, format)) in
        SDKS.iter().flat_map(|sdk| [("json", Format::Json), ("protobuf", Format::Protobuf)].map(|case| (sdk, case)))
    {
        let request = file("handshake", &format!("{sdk}_{name}"));
        let Ok(Head::Request(head)) = parse_head(&request, 16_384) else { panic!("{sdk} {name}") };
        assert_eq!(head.path, "/connection/websocket");
        assert_eq!(upgrade(&head).unwrap().unwrap().format, format, "{sdk} {name}");
    }
}

#[test]
fn the_sdks_frames_hold_their_commands() {
    for (sdk, (name, format)) in
        SDKS.iter().flat_map(|sdk| [("json", Format::Json), ("protobuf", Format::Protobuf)].map(|case| (sdk, case)))
    {
        // The first byte is for the fuzz target.
        let mut stream = file("assemble", &format!("{sdk}_{name}")).split_off(1);
        let (mut assembler, mut at, mut found, mut closed) = (Assembler::default(), 0, 0, false);
        loop {
            at += match assembler.step(&mut stream[at..], 65_536, true).unwrap() {
                Step::Message { payload, opcode_text, consumed } => {
                    assert_eq!(opcode_text, format == Format::Json);
                    found += commands(format, &payload).len();
                    consumed
                }
                Step::Close { consumed, .. } => {
                    closed = true;
                    consumed
                }
                Step::Incomplete => break,
                other => panic!("{other:?}"),
            };
        }
        assert!(closed, "{sdk} {name}");
        assert_eq!((at, found), (stream.len(), if *sdk == "javascript" { 10 } else { 8 }), "{sdk} {name}");
    }
}

#[test]
fn a_captured_session_is_a_delimited_stream() {
    let stream = file("delimited", "javascript_session");
    let (mut rest, mut count) = (stream.as_slice(), 0);
    while let Delimited::Message { consumed, .. } = split_delimited(rest, 65_536).unwrap() {
        rest = &rest[consumed..];
        count += 1;
    }
    assert_eq!((rest.len(), count), (0, 10));
}
