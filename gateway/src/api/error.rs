//! What an API call can fail with.

use std::borrow::Cow;

use axum::http::StatusCode;
use serde::{Serialize, Serializer};
use tidegate_broadcaster::BrokerError;
use tidegate_protocol::code::ErrorCode;

/// An error of one API method. The caller sees the code, and a text that says what would do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, thiserror::Error)]
#[error("{message} ({})", code.code())]
pub struct ApiError {
    /// The number, of the API's subset of the protocol's codes: 100, 102, 104, 106, 107, 108, 112, 113.
    #[serde(serialize_with = "number")]
    pub code: ErrorCode,
    /// For a person.
    pub message: Cow<'static, str>,
}

fn number<S: Serializer>(code: &ErrorCode, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_u16(code.code())
}

impl ApiError {
    /// The caller's fault: the request makes no sense as it is (107).
    pub fn bad_request(message: impl Into<Cow<'static, str>>) -> Self {
        Self { code: ErrorCode::BadRequest, message: message.into() }
    }

    /// The caller's fault: the channel's namespace does not exist (102).
    pub fn unknown_channel(message: impl Into<Cow<'static, str>>) -> Self {
        Self { code: ErrorCode::UnknownChannel, message: message.into() }
    }

    /// The HTTP status in the transport error mode.
    pub fn status(&self) -> StatusCode {
        match self.code {
            ErrorCode::BadRequest | ErrorCode::NotAvailable | ErrorCode::LimitExceeded => StatusCode::BAD_REQUEST,
            ErrorCode::UnknownChannel | ErrorCode::MethodNotFound => StatusCode::NOT_FOUND,
            ErrorCode::UnrecoverablePosition => StatusCode::RANGE_NOT_SATISFIABLE,
            ErrorCode::ConcurrentPagination => StatusCode::CONFLICT,
            _ => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    /// Whether the caller has to change something, as opposed to the gateway or the broker.
    pub fn is_callers_fault(&self) -> bool {
        self.status().is_client_error()
    }
}

impl From<ErrorCode> for ApiError {
    fn from(code: ErrorCode) -> Self {
        Self { code, message: Cow::Borrowed(code.reason()) }
    }
}

impl From<BrokerError> for ApiError {
    /// The broker's fault, and a retry may help: what exactly happened is for the log, not for the caller. Only a
    /// payload that is too long is the caller's own.
    fn from(error: BrokerError) -> Self {
        match error {
            BrokerError::TooLong { .. } => Self::bad_request(error.to_string()),
            _ => ErrorCode::Internal.into(),
        }
    }
}
