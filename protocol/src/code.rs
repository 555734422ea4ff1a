//! Codes that clients see: errors in replies, disconnects, unsubscribes.
//!
//! Source: the Centrifuge client protocol, version 2. An SDK comes back after a disconnect
//! unless the code is 3500-3999 or 4500-4999.

use crate::message::Error;

/// Defines an enum of codes with their numbers and the texts that SDKs show.
macro_rules! codes {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident = $code:literal, $text:literal;)* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[repr(u16)]
        pub enum $name { $($(#[$variant_doc])* $variant = $code,)* }

        impl $name {
            /// Every code, ascending.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The number on the wire.
            pub const fn code(self) -> u16 {
                self as u16
            }

            /// The text that goes with it.
            pub const fn reason(self) -> &'static str {
                match self { $(Self::$variant => $text,)* }
            }

            /// The place of this code in [`Self::ALL`].
            pub fn index(self) -> usize {
                Self::ALL.iter().position(|code| *code == self).unwrap_or_default()
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                write!(f, "{} ({})", self.code(), self.reason())
            }
        }
    };
}

codes! {
    /// Why the server ends a connection.
    DisconnectCode {
        /// Closed in the ordinary way.
        ConnectionClosed = 3000, "connection closed";
        /// The node goes away; another one serves.
        Shutdown = 3001, "shutdown";
        /// A fault of the gateway.
        InternalServerError = 3004, "internal server error";
        /// The connection's token expired and was not refreshed.
        ConnectionExpired = 3005, "connection expired";
        /// A server-side subscription's token expired.
        SubscriptionExpired = 3006, "subscription expired";
        /// The client reads more slowly than messages arrive.
        Slow = 3008, "slow";
        /// Writing to the socket failed.
        WriteError = 3009, "write error";
        /// The position in a channel was lost.
        InsufficientState = 3010, "insufficient state";
        /// The server asks the client to come back, perhaps to another node.
        ForceReconnect = 3011, "force reconnect";
        /// No pong came in time.
        NoPong = 3012, "no pong";
        /// Too many requests.
        TooManyRequests = 3013, "too many requests";
        /// Tokens and positions are void.
        StateInvalidated = 3014, "state invalidated";
        /// The connection's token is not valid.
        InvalidToken = 3500, "invalid token";
        /// A violation of the protocol.
        BadRequest = 3501, "bad request";
        /// The client never authenticated.
        Stale = 3502, "stale";
        /// The server application ended the connection.
        ForceDisconnect = 3503, "force disconnect";
        /// Too many connections of this user.
        ConnectionLimit = 3504, "connection limit";
        /// Too many subscriptions.
        ChannelLimit = 3505, "channel limit";
        /// A payload that this connection's format cannot carry.
        InappropriateProtocol = 3506, "inappropriate protocol";
        /// Not allowed.
        PermissionDenied = 3507, "permission denied";
        /// A feature that is switched off.
        NotAvailable = 3508, "not available";
        /// Too many errors on one connection.
        TooManyErrors = 3509, "too many errors";
    }
}

codes! {
    /// Why a command failed. The connection goes on.
    ErrorCode {
        /// A fault of the gateway or of the broker; temporary.
        Internal = 100, "internal server error";
        /// No valid credentials.
        Unauthorized = 101, "unauthorized";
        /// The channel's namespace does not exist.
        UnknownChannel = 102, "unknown channel";
        /// Not allowed.
        PermissionDenied = 103, "permission denied";
        /// No such method.
        MethodNotFound = 104, "method not found";
        /// The connection has this subscription.
        AlreadySubscribed = 105, "already subscribed";
        /// Too many subscriptions or keys.
        LimitExceeded = 106, "limit exceeded";
        /// The request makes no sense.
        BadRequest = 107, "bad request";
        /// The feature is off.
        NotAvailable = 108, "not available";
        /// The token expired.
        TokenExpired = 109, "token expired";
        /// Expired, as the server says.
        Expired = 110, "expired";
        /// Too many requests; temporary.
        TooManyRequests = 111, "too many requests";
        /// The position cannot be recovered.
        UnrecoverablePosition = 112, "unrecoverable position";
        /// Two pages were asked for at once; temporary.
        ConcurrentPagination = 113, "concurrent pagination";
    }
}

codes! {
    /// Why the server ends a subscription. SDKs resubscribe from 2500 on.
    UnsubscribeCode {
        /// The server application ended it.
        Server = 2000, "server unsubscribe";
        /// The position was lost.
        InsufficientState = 2500, "insufficient state";
        /// The token expired.
        Expired = 2501, "subscription expired";
        /// Token and position are void.
        StateInvalidated = 2502, "state invalidated";
    }
}

impl DisconnectCode {
    /// Whether an SDK connects again after this code.
    pub const fn reconnect(self) -> bool {
        self.code() < 3500
    }
}

impl ErrorCode {
    /// Whether a retry may help.
    pub const fn temporary(self) -> bool {
        matches!(self, Self::Internal | Self::TooManyRequests | Self::ConcurrentPagination)
    }
}

impl From<ErrorCode> for Error {
    fn from(code: ErrorCode) -> Self {
        Self { code: code.code().into(), message: code.reason().to_owned(), temporary: code.temporary() }
    }
}
