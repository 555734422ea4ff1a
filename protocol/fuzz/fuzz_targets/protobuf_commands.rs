//! Protobuf commands: the decoder takes any bytes, makes progress, and what it accepts survives being written again.
#![no_main]

use libfuzzer_sys::fuzz_target;
use prost::Message;
use tidegate_protocol::codec::{Commands, Format, decode_command, decode_reply, encode_reply};
use tidegate_protocol::limits::Limits;

fuzz_target!(|data: &[u8]| {
    let mut commands = Commands::new(Format::Protobuf, data, &Limits::default());
    let mut rest = data.len();
    while let Some(command) = commands.next() {
        let Ok(command) = command else {
            assert!(commands.next().is_none());
            break;
        };
        assert!(commands.rest().len() < rest);
        rest = commands.rest().len();
        let again = decode_command(Format::Protobuf, &command.encode_to_vec()).expect("what was written can be read");
        assert_eq!(again, command);
    }
    // A reply of any payloads is one line of JSON, whatever the payloads are.
    if let Ok(reply) = decode_reply(Format::Protobuf, data) {
        let mut out = Vec::new();
        encode_reply(Format::Json, &reply, &mut out);
        assert!(!out.contains(&b'\n'));
        assert!(serde_json::from_slice::<&serde_json::value::RawValue>(&out).is_ok());
    }
});
