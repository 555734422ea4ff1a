//! The methods of the API.

use tidegate_protocol::code::ErrorCode;

/// A method that is served.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Method {
    /// Publish into one channel.
    Publish,
    /// Publish the same into many channels.
    Broadcast,
    /// What a channel keeps.
    History,
    /// Forget what a channel keeps.
    HistoryRemove,
    /// Who is in a channel.
    Presence,
    /// How many are in a channel.
    PresenceStats,
    /// What the node is.
    Info,
    /// Which channels have subscribers.
    Channels,
    /// Many commands in one request.
    Batch,
}

/// Methods of the incumbent that Tidegate does not have yet: they answer 108, not 104, so that
/// a caller learns that the name was right.
const NOT_YET: &[&str] = &[
    "subscribe",
    "unsubscribe",
    "disconnect",
    "refresh",
    "rpc",
    "map_publish",
    "map_remove",
    "map_read_state",
    "map_read_stream",
    "map_stats",
    "map_clear",
    "shared_poll_publish",
    "connections",
    "update_user_status",
    "get_user_status",
    "delete_user_status",
    "block_user",
    "unblock_user",
    "revoke_token",
    "invalidate_user_tokens",
    "device_register",
    "device_update",
    "device_remove",
    "device_list",
    "device_topic_list",
    "device_topic_update",
    "user_topic_list",
    "user_topic_update",
    "send_push_notification",
    "update_push_status",
    "cancel_push",
];

impl Method {
    /// Every method, in the order of metrics.
    pub const ALL: [Self; 9] = [
        Self::Publish,
        Self::Broadcast,
        Self::History,
        Self::HistoryRemove,
        Self::Presence,
        Self::PresenceStats,
        Self::Info,
        Self::Channels,
        Self::Batch,
    ];

    /// The name in paths and commands.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Publish => "publish",
            Self::Broadcast => "broadcast",
            Self::History => "history",
            Self::HistoryRemove => "history_remove",
            Self::Presence => "presence",
            Self::PresenceStats => "presence_stats",
            Self::Info => "info",
            Self::Channels => "channels",
            Self::Batch => "batch",
        }
    }

    /// The method of this name.
    ///
    /// # Errors
    /// 108 for a method that exists elsewhere but is not available here yet, 104 for any other name.
    pub fn from_name(name: &str) -> Result<Self, ErrorCode> {
        match Self::ALL.into_iter().find(|method| method.name() == name) {
            Some(method) => Ok(method),
            None if NOT_YET.contains(&name) => Err(ErrorCode::NotAvailable),
            None => Err(ErrorCode::MethodNotFound),
        }
    }
}
