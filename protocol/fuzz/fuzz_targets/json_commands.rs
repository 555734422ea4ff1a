//! JSON commands: the decoder takes any bytes, makes progress, and what it accepts survives being written again.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tidegate_protocol::codec::{Commands, Format, decode_command, decode_reply, encode_reply};
use tidegate_protocol::limits::Limits;

fuzz_target!(|data: &[u8]| {
    let mut commands = Commands::new(Format::Json, data, &Limits::default());
    let mut rest = data.len() + 1;
    while let Some(command) = commands.next() {
        assert!(commands.rest().len() < rest);
        rest = commands.rest().len();
        let Ok(command) = command else {
            assert!(commands.next().is_none());
            break;
        };
        // The first writing drops newlines from payloads; after that nothing changes any more.
        let once = serde_json::to_vec(&command).expect("a command can be written");
        assert!(!once.contains(&b'\n'));
        let again = decode_command(Format::Json, &once).expect("what was written can be read");
        assert_eq!(serde_json::to_vec(&again).expect("a command can be written"), once);
    }
    if let Ok(reply) = decode_reply(Format::Json, data) {
        let mut out = Vec::new();
        encode_reply(Format::Json, &reply, &mut out);
        decode_reply(Format::Json, &out).expect("what was written can be read");
    }
});
