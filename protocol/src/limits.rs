//! What a decoder accepts at most.

/// Bounds of what a client may send. A decoder checks a bound before it allocates or descends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of one transport message, and of one command.
    pub message_size: usize,
    /// Bytes of a channel's name. The session holds it, not the codec: a longer name costs an error reply, not the connection.
    pub channel_length: usize,
    /// How deep a JSON command may nest, its own object and its raw payload included.
    pub json_depth: usize,
    /// Bytes of an HTTP request head, request line and blank line included.
    pub head_size: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { message_size: 65_536, channel_length: 255, json_depth: 64, head_size: 16_384 }
    }
}
